/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Opening and making the results database. What is not ours is told apart by reading the file's
 * header before SQLite sees it: opening alone may roll back a journal or make files beside it. */
#include "config.h"

#include "analysis/results.h"

#include "analysis/schema.h"
#include "analysis/sql.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kv_results {
    sqlite3 *db;
    char *path;
};

enum {
    HEADER_BYTES = 100,
    HEADER_SCHEMA = 40,      /* where SQLite's header keeps the schema cookie: 0 before any table */
    HEADER_VERSION = 60,     /* where SQLite's header keeps user_version, big-endian */
    HEADER_APPLICATION = 68, /* and application_id */
    BUSY_MS = 10000
};

static uint32_t big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static kv_err check_version(uint32_t version, const kv_mark *mark, kv_diag *diag)
{
    if (version != KV_SCHEMA_VERSION)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "the results have schema version %u, this kvsim knows version %d; "
                       "use the kvsim that wrote them, or another file",
                       (unsigned)version, KV_SCHEMA_VERSION);
    return KV_OK;
}

/* A database without a table: what is left of a file whose making was cut short. */
static bool is_blank(const unsigned char *header)
{
    return big_endian(header + HEADER_SCHEMA) == 0 && big_endian(header + HEADER_VERSION) == 0 &&
           big_endian(header + HEADER_APPLICATION) == 0;
}

static kv_err check_header(const unsigned char *header, ssize_t bytes, kv_results_mode mode,
                           const kv_mark *mark, kv_diag *diag)
{
    if (bytes == 0 && mode == KV_RESULTS_WRITE)
        return KV_OK;
    if (bytes < HEADER_BYTES || memcmp(header, "SQLite format 3", 16) != 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "this is no results database of kvsim");
    if (is_blank(header) && mode == KV_RESULTS_WRITE)
        return KV_OK;
    if (big_endian(header + HEADER_APPLICATION) != KV_SCHEMA_APPLICATION)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "this is a database of another program, not results of kvsim");
    return check_version(big_endian(header + HEADER_VERSION), mark, diag);
}

/* Tells from its first bytes whether a file may be opened. */
static kv_err look_at_file(const char *path, kv_results_mode mode, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    struct stat status;
    unsigned char header[HEADER_BYTES];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT && mode == KV_RESULTS_WRITE)
        return KV_OK;
    if (file < 0)
        return kv_fail(diag, errno == ENOENT ? KV_ERR_INPUT : KV_ERR_IO, &mark,
                       "cannot open the results database: %s", strerror(errno));
    ssize_t bytes = read(file, header, sizeof header);
    int failed = bytes < 0 ? errno : 0;
    bool regular = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    close(file);
    if (!regular)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "expected a results database, not a %s",
                       S_ISDIR(status.st_mode) ? "folder" : "device");
    if (failed)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot read: %s", strerror(failed));
    return check_header(header, bytes, mode, &mark, diag);
}

/* Makes the tables of a file that has none, all at once. The header is written before WAL begins,
 * so that look_at_file always finds it in the file itself. */
static kv_err create_schema(kv_results *results, kv_diag *diag)
{
    char *create = kv_schema_create();
    char *identity = sqlite3_mprintf("PRAGMA application_id = %d; PRAGMA user_version = %d",
                                     KV_SCHEMA_APPLICATION, KV_SCHEMA_VERSION);
    kv_err err = create && identity ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK)
        err = kv__sql_exec(results, "PRAGMA auto_vacuum = INCREMENTAL", diag);
    if (err == KV_OK)
        err = kv__sql_begin(results, diag);
    if (err == KV_OK) {
        long long tables = 0;
        err = kv__sql_number(results, 0, &tables, diag, "SELECT count(*) FROM sqlite_schema", "");
        if (err == KV_OK && tables == 0) /* else another process was faster */
            err = kv__sql_exec(results, identity, diag);
        if (err == KV_OK && tables == 0)
            err = kv__sql_exec(results, create, diag);
        err = kv__sql_end(results, err, diag);
    }
    free(create);
    sqlite3_free(identity);
    return err;
}

/* Between releases tables may change under one version: what lacks something that this kvsim reads
 * or writes is told apart here, and not by SQL that fails later. */
static kv_err check_table(kv_results *results, const kv_table *table, kv_diag *diag)
{
    kv_mark mark = {results->path, 0, 0};
    long long there = 0;
    kv_err err =
        kv__sql_number(results, 0, &there, diag,
                       "SELECT count(*) FROM sqlite_schema WHERE name = ?", "t", table->name);
    if (err == KV_OK && there == 0)
        return kv_fail(
            diag, KV_ERR_INPUT, &mark,
            "the results have no table %s: an earlier kvsim wrote them; use that one, or "
            "another file",
            table->name);
    for (const kv_column *c = table->column; err == KV_OK && !table->is_view && c->name != NULL;
         c++) {
        if (strcmp(c->name, "*") == 0)
            continue;
        err = kv__sql_number(results, 0, &there, diag,
                             "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?", "tt",
                             table->name, c->name);
        if (err == KV_OK && there == 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "table %s of the results has no column %s: an earlier kvsim wrote them; "
                           "use that one, or another file",
                           table->name, c->name);
    }
    return err;
}

static kv_err check_tables(kv_results *results, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (const kv_table *const *part = kv_schema_parts(); *part != NULL; part++)
        for (const kv_table *table = *part; table->name != NULL && err == KV_OK; table++)
            err = check_table(results, table, diag);
    return err;
}

static kv_err check_opened(kv_results *results, kv_diag *diag)
{
    kv_mark mark = {results->path, 0, 0};
    long long application = 0, version = 0;
    kv_err err = kv__sql_number(results, 0, &application, diag, "PRAGMA application_id", "");
    if (err == KV_OK)
        err = kv__sql_number(results, 0, &version, diag, "PRAGMA user_version", "");
    if (err == KV_OK && application != KV_SCHEMA_APPLICATION)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "this is no results database of kvsim");
    if (err == KV_OK)
        err = check_version((uint32_t)version, &mark, diag);
    return err == KV_OK ? check_tables(results, diag) : err;
}

/* By now SQLite has rolled back what a killed process may have left: perhaps all there was. */
static kv_err prepare_writer(kv_results *results, kv_diag *diag)
{
    long long tables = 0;
    kv_err err =
        kv__sql_number(results, 0, &tables, diag, "SELECT count(*) FROM sqlite_schema", "");
    if (err == KV_OK && tables == 0)
        err = create_schema(results, diag);
    if (err == KV_OK)
        err = kv__sql_exec(results, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", diag);
    return err;
}

/* "file:PATH?immutable=1" with what is special in a URI escaped; free it. */
static char *immutable_uri(const char *path)
{
    char *uri = malloc(3 * strlen(path) + 32);
    if (uri == NULL)
        return NULL;
    char *at = uri + sprintf(uri, "file:");
    for (; *path; path++)
        at += sprintf(at, strchr("%?#", *path) ? "%%%02X" : "%c", (unsigned char)*path);
    strcpy(at, "?immutable=1");
    return uri;
}

/* A reader of a WAL file makes files beside it, which a read-only folder forbids. With no journal
 * there nothing is written to the file either, and SQLite may take it as it lies. */
static kv_err open_reader(kv_results *results, kv_diag *diag)
{
    char *wal = sqlite3_mprintf("%s-wal", results->path);
    bool quiet = wal != NULL && access(wal, F_OK) != 0;
    sqlite3_free(wal);
    char *uri = quiet ? immutable_uri(results->path) : strdup(results->path);
    if (uri == NULL)
        return kv_fail_memory(diag);
    int flags = SQLITE_OPEN_READONLY | (quiet ? SQLITE_OPEN_URI : 0);
    int code = sqlite3_open_v2(uri, &results->db, flags, NULL);
    free(uri);
    return code == SQLITE_OK ? KV_OK : kv__sql_fail(results, diag);
}

/* Makes an empty file first: SQLite's own error would say why it could not be read, not made. */
static kv_err open_writer(kv_results *results, kv_diag *diag)
{
    kv_mark mark = {results->path, 0, 0};
    int file = open(results->path, O_RDONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot make the results database: %s",
                       strerror(errno));
    close(file);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
    if (sqlite3_open_v2(results->path, &results->db, flags, NULL) != SQLITE_OK)
        return kv__sql_fail(results, diag);
    return KV_OK;
}

kv_err kv_results_open(const char *path, kv_results_mode mode, kv_results **out, kv_diag *diag)
{
    kv_err err = look_at_file(path, mode, diag);
    if (err != KV_OK)
        return err;
    kv_results *results = calloc(1, sizeof *results);
    if (results == NULL || (results->path = strdup(path)) == NULL) {
        free(results);
        return kv_fail_memory(diag);
    }
    err = mode == KV_RESULTS_READ ? open_reader(results, diag) : open_writer(results, diag);
    if (err == KV_OK) {
        sqlite3_busy_timeout(results->db, BUSY_MS);
        err = kv__sql_exec(results, "PRAGMA foreign_keys = ON", diag);
    }
    if (err == KV_OK && mode == KV_RESULTS_WRITE)
        err = prepare_writer(results, diag);
    if (err == KV_OK)
        err = check_opened(results, diag);
    if (err == KV_OK)
        *out = results;
    else
        kv_results_close(results);
    return err;
}

void kv_results_close(kv_results *results)
{
    if (results == NULL)
        return;
    sqlite3_close(results->db);
    free(results->path);
    free(results);
}

const char *kv_results_path(const kv_results *results)
{
    return results->path;
}

struct sqlite3 *kv_results_handle(kv_results *results)
{
    return results->db;
}
