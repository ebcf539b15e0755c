/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Signals by which a crash shows; what handles them in this process is not for the child. */
static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};

static void run_child(void (*attempt)(void *), void *closure, int cpu_seconds)
{
    const struct rlimit cpu = {(rlim_t)cpu_seconds, (rlim_t)cpu_seconds + 1}, none = {0, 0};
    for (size_t i = 0; i < sizeof crash_signals / sizeof *crash_signals; i++)
        signal(crash_signals[i], SIG_DFL);
    signal(SIGXCPU, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    setrlimit(RLIMIT_CPU, &cpu);
    setrlimit(RLIMIT_CORE, &none);
    alarm((unsigned)cpu_seconds * 10); /* asleep on a lock that nobody is left to give back */
    int sink = open("/dev/null", O_WRONLY);
    if (sink >= 0)
        dup2(sink, STDERR_FILENO); /* last words of the C library */
    attempt(closure);
    _exit(0);
}

kv__h5_end kv__h5_survives(void (*attempt)(void *), void *closure, int cpu_seconds)
{
    pid_t child = fork();
    if (child < 0)
        return KV__H5_RETURNED;
    if (child == 0)
        run_child(attempt, closure, cpu_seconds);
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return KV__H5_RETURNED; /* the host has its children reaped by others */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return KV__H5_RETURNED;
    int sign = WIFSIGNALED(status) ? WTERMSIG(status) : SIGABRT;
    if (sign == SIGALRM)
        return KV__H5_RETURNED;
    return sign == SIGXCPU || sign == SIGKILL ? KV__H5_ENDLESS : KV__H5_CRASHED;
}
