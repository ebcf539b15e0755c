/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/h5.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The one mutable global of the library: HDF5's state is the process's, so its lock has to be. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void kv__h5_enter(kv__h5_guard *guard)
{
    pthread_mutex_lock(&lock);
    /* Fails, and there is nothing to put back, where the host set a handler of the old interface.
     */
    guard->saved = H5Eget_auto2(H5E_DEFAULT, &guard->print, &guard->closure) >= 0;
    if (guard->saved)
        H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void kv__h5_leave(const kv__h5_guard *guard)
{
    if (guard->saved)
        H5Eset_auto2(H5E_DEFAULT, guard->print, guard->closure);
    pthread_mutex_unlock(&lock);
}

/* --- Messages --------------------------------------------------------------------------------- */

/* Names go to terminals and into reports: nothing in them may be a control character. */
static bool is_printable(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            return false;
    return strlen(text) <= KV__H5_MAX_TEXT;
}

kv_err kv__h5_wrong(const kv__h5 *object, kv_diag *diag, const char *format, ...)
{
    char words[768];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    const kv_mark mark = {.path = object->file};
    bool root = strcmp(object->name, "/") == 0;
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s%s%s", root ? "" : object->name, root ? "" : ": ",
                   words);
}

static herr_t take_first(unsigned depth, const H5E_error2_t *error, void *words)
{
    if (depth == 0 && error->desc != NULL)
        snprintf(words, 256, ": %s", error->desc);
    return 0;
}

kv_err kv__h5_failed(const kv__h5 *object, kv_diag *diag, const char *what)
{
    char words[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, words);
    return kv__h5_wrong(object, diag, "%s%s", what, words);
}

/* --- Files and objects ------------------------------------------------------------------------ */

bool kv__h5_probe(const char *path)
{
    kv__h5_guard guard;
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) /* a pipe would be eaten */
        return false;
    kv__h5_enter(&guard);
    bool is = H5Fis_hdf5(path) > 0;
    kv__h5_leave(&guard);
    const char *suffix = strrchr(path, '.'); /* a cut file is known by its name alone */
    return is || (suffix != NULL && (strcmp(suffix, ".h5") == 0 || strcmp(suffix, ".hdf5") == 0));
}

kv_err kv__h5_open(const char *path, kv__h5 *file, kv_diag *diag)
{
    const kv_mark mark = {.path = path};
    *file = (kv__h5){.id = H5I_INVALID_HID, .file = path, .name = "/"};
    struct stat status;
    if (stat(path, &status) != 0 || access(path, R_OK) != 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is not a file");
    if (H5Fis_hdf5(path) <= 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is not an HDF5 file");
    file->id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    return file->id >= 0 ? KV_OK : kv__h5_failed(file, diag, "HDF5 cannot open the file");
}

static herr_t refuse_external(const char *parent_file, const char *parent_group,
                              const char *child_file, const char *child_object, unsigned *flags,
                              hid_t access_list, void *closure)
{
    return -1;
}

/* A copy of a link access list, or of one that is derived from it, that stays in the file. */
static hid_t stay_inside(hid_t access)
{
    hid_t list = access == H5P_DEFAULT ? H5Pcreate(H5P_DATASET_ACCESS) : H5Pcopy(access);
    if (list >= 0)
        H5Pset_elink_cb(list, refuse_external, NULL);
    return list;
}

static kv_err check_soft_link(const kv__h5 *group, const char *name, kv_diag *diag)
{
    hid_t inside = stay_inside(H5P_DEFAULT);
    htri_t exists = H5Oexists_by_name(group->id, name, inside);
    H5Pclose(inside);
    if (exists > 0)
        return KV_OK;
    return kv__h5_wrong(group, diag,
                        "the soft link '%s' leads nowhere, in a circle or to another file; replace "
                        "it by what it should lead to",
                        name);
}

/* Tells whether the link exists, and refuses one that leaves the file or leads nowhere. */
static kv_err check_link(const kv__h5 *group, const char *name, bool *exists, kv_diag *diag)
{
    H5L_info_t info;
    *exists = false;
    htri_t there = H5Lexists(group->id, name, H5P_DEFAULT);
    if (there == 0)
        return KV_OK;
    if (there < 0 || H5Lget_info(group->id, name, &info, H5P_DEFAULT) < 0)
        return kv__h5_failed(group, diag, "its links cannot be read");
    *exists = true;
    if (info.type == H5L_TYPE_HARD)
        return KV_OK;
    if (info.type == H5L_TYPE_SOFT)
        return check_soft_link(group, name, diag);
    return kv__h5_wrong(group, diag,
                        "'%s' is a link to another file; a trace must hold all of its data, copy "
                        "what the link leads to into it",
                        name);
}

static void name_child(const kv__h5 *parent, const char *name, kv__h5 *child)
{
    const char *slash = parent->name[1] ? "/" : ""; /* the root is "/" already */
    *child = (kv__h5){.id = H5I_INVALID_HID, .file = parent->file};
    int written = snprintf(child->name, sizeof child->name, "%s%s%s", parent->name, slash, name);
    if (written >= (int)sizeof child->name)
        memcpy(child->name + sizeof child->name - 4, "...", 4);
}

kv_err kv__h5_open_child(const kv__h5 *parent, const char *name, H5I_type_t type, bool required,
                         hid_t access, kv__h5 *child, kv_diag *diag)
{
    bool exists;
    name_child(parent, name, child);
    kv_err err = check_link(parent, name, &exists, diag);
    if (err != KV_OK)
        return err;
    const char *kind = type == H5I_GROUP ? "group" : "dataset";
    if (!exists)
        return required ? kv__h5_wrong(parent, diag, "has no %s '%s'", kind, name) : KV_OK;
    hid_t inside = stay_inside(access);
    hid_t id = H5Oopen(parent->id, name, inside);
    H5I_type_t found = id >= 0 ? H5Iget_type(id) : H5I_BADID;
    if (id >= 0 && found == type && type == H5I_DATASET && access != H5P_DEFAULT) {
        H5Oclose(id); /* only H5Dopen heeds a dataset's access list */
        id = H5Dopen2(parent->id, name, inside);
    }
    err = id >= 0 ? KV_OK : kv__h5_failed(child, diag, "cannot be opened");
    H5Pclose(inside); /* not before HDF5's words were taken: each call begins by forgetting them */
    if (err != KV_OK)
        return err;
    child->id = id;
    if (found == type)
        return KV_OK;
    kv__h5_close(child);
    return kv__h5_wrong(child, diag, "is not a %s", kind);
}

void kv__h5_close(kv__h5 *object)
{
    if (object->id < 0)
        return;
    if (H5Iget_type(object->id) == H5I_FILE)
        H5Fclose(object->id);
    else
        H5Oclose(object->id);
    object->id = H5I_INVALID_HID;
}

/* --- Links of a group ------------------------------------------------------------------------- */

typedef struct name_list {
    char **name;
    int count, room;
    bool no_memory;
} name_list;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *closure)
{
    name_list *list = closure;
    if (list->count == list->room) {
        int room = list->room ? 2 * list->room : 64;
        char **grown = realloc(list->name, (size_t)room * sizeof *grown);
        list->no_memory = grown == NULL;
        if (grown == NULL)
            return -1;
        list->name = grown;
        list->room = room;
    }
    char *copy = strdup(name);
    list->no_memory = copy == NULL;
    if (copy == NULL)
        return -1;
    list->name[list->count++] = copy;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void kv__h5_free_names(char **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

kv_err kv__h5_check_links(const kv__h5 *group, char ***names, int *count, kv_diag *diag)
{
    name_list list = {0};
    kv_err err = KV_OK;
    if (H5Literate(group->id, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_name, &list) < 0)
        err = list.no_memory ? kv_fail_memory(diag)
                             : kv__h5_failed(group, diag, "its links cannot be read");
    if (list.count > 0)
        qsort(list.name, (size_t)list.count, sizeof *list.name, by_bytes);
    bool exists;
    for (int i = 0; i < list.count && err == KV_OK; i++)
        err = is_printable(list.name[i])
                  ? check_link(group, list.name[i], &exists, diag)
                  : kv__h5_wrong(group, diag, "holds a name with control characters");
    if (err != KV_OK || names == NULL) {
        kv__h5_free_names(list.name, list.count);
        return err;
    }
    *names = list.name;
    *count = list.count;
    return KV_OK;
}

/* --- Attributes ------------------------------------------------------------------------------- */

bool kv__h5_has_attribute(const kv__h5 *object, const char *name)
{
    return H5Aexists(object->id, name) > 0;
}

/* Opens a scalar attribute and its type. */
static kv_err open_attribute(const kv__h5 *object, const char *name, hid_t *attribute, hid_t *type,
                             kv_diag *diag)
{
    if (H5Aexists(object->id, name) <= 0)
        return kv__h5_wrong(object, diag, "has no attribute '%s'", name);
    *attribute = H5Aopen(object->id, name, H5P_DEFAULT);
    if (*attribute < 0)
        return kv__h5_failed(object, diag, "an attribute cannot be opened");
    hid_t space = H5Aget_space(*attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    *type = H5Aget_type(*attribute);
    if (count == 1 && *type >= 0)
        return KV_OK;
    H5Tclose(*type);
    H5Aclose(*attribute);
    return kv__h5_wrong(object, diag, "attribute '%s' must be one value", name);
}

/* Reads an attribute of one of two classes into a native value. */
static kv_err get_number(const kv__h5 *object, const char *name, H5T_class_t class,
                         H5T_class_t other, hid_t memory_type, void *out, kv_diag *diag)
{
    hid_t attribute, type;
    kv_err err = open_attribute(object, name, &attribute, &type, diag);
    if (err != KV_OK)
        return err;
    H5T_class_t found = H5Tget_class(type);
    if (found != class && found != other)
        err = kv__h5_wrong(object, diag, "attribute '%s' must be %s", name,
                           class == H5T_INTEGER ? "an integer" : "a number");
    else if (H5Aread(attribute, memory_type, out) < 0)
        err = kv__h5_failed(object, diag, "an attribute cannot be read");
    H5Tclose(type);
    H5Aclose(attribute);
    return err;
}

kv_err kv__h5_get_int(const kv__h5 *object, const char *name, long long least, long long most,
                      long long *out, kv_diag *diag)
{
    long long value;
    kv_err err = get_number(object, name, H5T_INTEGER, H5T_INTEGER, H5T_NATIVE_LLONG, &value, diag);
    if (err != KV_OK)
        return err;
    if (value < least || value > most)
        return kv__h5_wrong(object, diag, "attribute '%s' is %lld, expected %lld to %lld", name,
                            value, least, most);
    *out = value;
    return KV_OK;
}

kv_err kv__h5_get_real(const kv__h5 *object, const char *name, double *out, kv_diag *diag)
{
    double value;
    kv_err err = get_number(object, name, H5T_FLOAT, H5T_INTEGER, H5T_NATIVE_DOUBLE, &value, diag);
    if (err != KV_OK)
        return err;
    if (!isfinite(value))
        return kv__h5_wrong(object, diag, "attribute '%s' is not finite", name);
    *out = value;
    return KV_OK;
}

/* Reads a string; HDF5 converts neither between character sets nor between fixed and variable
 * length, so the type in memory follows the one in the file. */
static char *read_text(hid_t attribute, hid_t type)
{
    char *text = NULL;
    bool variable = H5Tis_variable_str(type) > 0;
    size_t size = variable ? H5T_VARIABLE : H5Tget_size(type) + 1;
    hid_t memory_type = H5Tcopy(H5T_C_S1);
    H5Tset_size(memory_type, size);
    H5Tset_cset(memory_type, H5Tget_cset(type));
    if (variable) {
        char *lent = NULL;
        if (H5Aread(attribute, memory_type, &lent) >= 0 && lent != NULL)
            text = strndup(lent, KV__H5_MAX_TEXT + 1);
        H5free_memory(lent);
    } else if (size <= KV__H5_MAX_TEXT + 1) {
        text = calloc(1, size);
        if (text != NULL && H5Aread(attribute, memory_type, text) < 0) {
            free(text);
            text = NULL;
        }
    }
    H5Tclose(memory_type);
    return text;
}

kv_err kv__h5_get_text(const kv__h5 *object, const char *name, char **out, kv_diag *diag)
{
    hid_t attribute, type;
    kv_err err = open_attribute(object, name, &attribute, &type, diag);
    if (err != KV_OK)
        return err;
    char *text = H5Tget_class(type) == H5T_STRING ? read_text(attribute, type) : NULL;
    H5Tclose(type);
    H5Aclose(attribute);
    if (text != NULL && is_printable(text)) {
        *out = text;
        return KV_OK;
    }
    free(text);
    return kv__h5_wrong(object, diag,
                        "attribute '%s' must be a string of at most %d bytes without control "
                        "characters",
                        name, (int)KV__H5_MAX_TEXT);
}

/* --- Datasets --------------------------------------------------------------------------------- */

static kv_err check_filters(const kv__h5 *dataset, hid_t creation, kv_diag *diag)
{
    int count = H5Pget_nfilters(creation);
    for (int i = 0; i < count; i++) {
        char name[64] = "";
        unsigned flags, config;
        size_t parameters = 0;
        H5Z_filter_t filter = H5Pget_filter2(creation, (unsigned)i, &flags, &parameters, NULL,
                                             sizeof name, name, &config);
        if (filter < 0 || H5Zfilter_avail(filter) <= 0)
            return kv__h5_wrong(dataset, diag,
                                "is stored with filter %d (%s), which HDF5 has no plugin for here; "
                                "rewrite the file with h5repack -f GZIP=4",
                                (int)filter, name[0] && is_printable(name) ? name : "unnamed");
    }
    return KV_OK;
}

static kv_err check_storage(const kv__h5 *dataset, kv_diag *diag)
{
    hid_t creation = H5Dget_create_plist(dataset->id);
    if (creation < 0)
        return kv__h5_failed(dataset, diag, "cannot be read");
    kv_err err = KV_OK;
    H5D_layout_t layout = H5Pget_layout(creation);
    if (layout == H5D_VIRTUAL || H5Pget_external_count(creation) != 0)
        err = kv__h5_wrong(dataset, diag,
                           "has its numbers in another file; a trace must hold all of its data");
    else if (layout == H5D_CHUNKED)
        err = check_filters(dataset, creation, diag);
    H5Pclose(creation);
    return err;
}

static void write_extents(char *out, size_t bytes, int rank, const long long *extents)
{
    size_t used = 0;
    for (int i = 0; i < rank && used < bytes; i++) {
        const char *comma = i ? ", " : "";
        used += (size_t)(extents[i] == KV__H5_ANY
                             ? snprintf(out + used, bytes - used, "%sany", comma)
                             : snprintf(out + used, bytes - used, "%s%lld", comma, extents[i]));
    }
}

static kv_err check_extents(const kv__h5 *dataset, int rank, const long long *extents,
                            long long *found, kv_diag *diag)
{
    hsize_t dims[H5S_MAX_RANK] = {0};
    hid_t space = H5Dget_space(dataset->id);
    int found_rank = H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    bool fits = found_rank == rank;
    long long is[H5S_MAX_RANK];
    for (int i = 0; i < found_rank; i++) {
        is[i] = dims[i] <= LLONG_MAX ? (long long)dims[i] : LLONG_MAX;
        fits = fits && (extents[i] == KV__H5_ANY || extents[i] == is[i]);
        if (fits && found != NULL)
            found[i] = is[i];
    }
    if (fits)
        return KV_OK;
    char want[128] = "", got[128] = "";
    write_extents(want, sizeof want, rank, extents);
    write_extents(got, sizeof got, found_rank, is);
    return kv__h5_wrong(dataset, diag, "has shape [%s], expected [%s]", got, want);
}

kv_err kv__h5_check_dataset(const kv__h5 *dataset, H5T_class_t class, int rank,
                            const long long *extents, long long *found, kv_diag *diag)
{
    hid_t type = H5Dget_type(dataset->id);
    H5T_class_t found_class = H5Tget_class(type);
    H5Tclose(type);
    if (found_class != class)
        return kv__h5_wrong(dataset, diag, "must hold %s",
                            class == H5T_INTEGER ? "integers" : "floating-point numbers");
    kv_err err = check_extents(dataset, rank, extents, found, diag);
    if (err == KV_OK)
        err = check_storage(dataset, diag);
    if (err != KV_OK)
        return err;
    hid_t space = H5Dget_space(dataset->id);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    if (count != 0 && H5Dget_storage_size(dataset->id) == 0)
        return kv__h5_wrong(dataset, diag, "was never written");
    return KV_OK;
}

kv_err kv__h5_read_all(const kv__h5 *dataset, hid_t memory_type, void *out, kv_diag *diag)
{
    if (H5Dread(dataset->id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0)
        return KV_OK;
    return kv__h5_failed(dataset, diag, "cannot be read");
}
