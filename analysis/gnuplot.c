/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/gnuplot.h"

#include "analysis/text.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void kv__gnuplot_text(FILE *script, const char *text)
{
    int brackets = 0; /* in a row, just before */
    fputc('\'', script);
    for (int bytes; *text; text += bytes ? bytes : 1) {
        bytes = kv__character(text);
        if (bytes == 0 || kv__direction(text, bytes) > KV_DIRECTION_RIGHT)
            continue; /* the latter would turn what stands after the name */
        if (*text == '\'')
            fputc('\'', script); /* '' is one quote in a single-quoted string */
        if (*text == '>' && brackets >= 2)
            fputc(' ', script); /* gnuplot leaves > as it is, and XML forbids ]]> in a text */
        brackets = *text == ']' ? brackets + 1 : 0;
        fwrite(text, 1, (size_t)bytes, script);
    }
    fputc('\'', script);
}

/* Starts gnuplot on three open files. -d: the user's own start-up files do not matter. */
static int start(int script, int picture, int words, pid_t *child)
{
    char *arguments[] = {"gnuplot", "-d", "-", NULL};
    posix_spawn_file_actions_t files;
    int failed = posix_spawn_file_actions_init(&files);
    if (failed)
        return failed;
    posix_spawn_file_actions_adddup2(&files, script, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, picture, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, words, STDERR_FILENO);
    failed = posix_spawnp(child, arguments[0], &files, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    return failed;
}

/* The last line that gnuplot wrote, which says what is wrong. */
static void last_words(FILE *words, char *out, size_t bytes)
{
    char line[256];
    snprintf(out, bytes, "it said nothing");
    rewind(words);
    while (fgets(line, sizeof line, words) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strspn(line, " \t^") < strlen(line))
            snprintf(out, bytes, "%s", line);
    }
}

static kv_err wait_for(pid_t child, FILE *words, kv_diag *diag)
{
    int status;
    char text[256];
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return kv_fail(diag, KV_ERR_IO, NULL, "gnuplot was lost: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return KV_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, NULL,
                       "gnuplot could not be started; install it to draw plots");
    last_words(words, text, sizeof text);
    return kv_fail(diag, KV_ERR_IO, NULL, "gnuplot failed: %s", text);
}

/* Takes what gnuplot draws, to its end. gnuplot itself does not mind a disk that is full. Answers
 * errno of what went wrong, 0 if nothing did. */
static int copy_picture(int from, int to)
{
    char bytes[1 << 16];
    int failed = 0;
    for (;;) {
        ssize_t got = read(from, bytes, sizeof bytes), done = 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return failed != 0 || got == 0 ? failed : errno;
        while (done < got && failed == 0) {
            ssize_t put = write(to, bytes + done, (size_t)(got - done));
            if (put >= 0)
                done += put;
            else if (errno != EINTR)
                failed = errno;
        }
    }
}

/* Runs gnuplot with a pipe for its picture. */
static kv_err draw(int script, int picture, FILE *words, kv_diag *diag)
{
    int ends[2];
    pid_t child;
    if (pipe(ends) != 0)
        return kv_fail(diag, KV_ERR_IO, NULL, "gnuplot cannot be started: %s", strerror(errno));
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    int failed = start(script, ends[1], fileno(words), &child);
    close(ends[1]);
    int lost = failed == 0 ? copy_picture(ends[0], picture) : 0;
    close(ends[0]);
    if (failed != 0)
        return failed == ENOENT ? kv_fail(diag, KV_ERR_UNSUPPORTED, NULL,
                                          "gnuplot was not found; install it to draw plots")
                                : kv_fail(diag, KV_ERR_IO, NULL, "gnuplot cannot be started: %s",
                                          strerror(failed));
    kv_err err = wait_for(child, words, diag);
    return err == KV_OK && lost != 0
               ? kv_fail(diag, KV_ERR_IO, NULL, "cannot write the picture: %s", strerror(lost))
               : err;
}

kv_err kv__gnuplot_run(FILE *script, int picture, kv_diag *diag)
{
    FILE *words = tmpfile();
    if (words == NULL || fflush(script) != 0 || lseek(fileno(script), 0, SEEK_SET) != 0) {
        int failed = errno;
        if (words != NULL)
            fclose(words);
        return kv_fail(diag, KV_ERR_IO, NULL, "cannot write a temporary file: %s",
                       strerror(failed));
    }
    kv_err err = draw(fileno(script), picture, words, diag);
    fclose(words);
    return err;
}
