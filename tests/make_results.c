/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* make_results OUT.db [WORD [NAME]]: writes the large made-up sweep, for the scripts that test
 * plots and reports. With `hostile`, names of tasks and policies hold what must not reach a script
 * or a page unescaped; `empty` begins a run without a point; `shard I N` writes one shard. */
#include "config.h"

#include "tests/synthetic.h"

#include <gsl/gsl_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char hostile[] =
    "x'\" <img src=x onerror=alert(1)> </script>&amp; `id` $(id) \\ \x01\n"
    "system 'touch pwned' ]]>";

static int begin_only(const kv_synthetic *s, const char *path, kv_diag *diag)
{
    kv_results *results = NULL;
    kv_run *run = NULL;
    kv_err err = kv_results_open(path, KV_RESULTS_WRITE, &results, diag);
    if (err == KV_OK)
        err = kv_run_begin(results, &s->info, false, &run, diag);
    kv_run_free(run);
    kv_results_close(results);
    return err;
}

int main(int argc, char **argv)
{
    kv_diag diag = {0};
    const char *word = argc > 2 ? argv[2] : "";
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_LARGE);
    if (argc < 2)
        return 2;
    gsl_set_error_handler_off();
    if (strcmp(word, "hostile") == 0) {
        s->info.name = hostile;
        s->info.experiment = hostile;
        for (int p = 8; p < 15; p++)
            s->point[p].label = hostile;
        for (int e = 0; e < 8; e++)
            s->example[e].task = s->example[e].trace = hostile;
    }
    if (strcmp(word, "shard") == 0 && argc > 4) {
        s->info.shard = atoi(argv[3]);
        s->info.shards = atoi(argv[4]);
    }
    kv_err err = strcmp(word, "empty") == 0
                     ? begin_only(s, argv[1], &diag)
                     : kv_synthetic_run(s, argv[1], false, false, false, &diag);
    if (err != KV_OK)
        fprintf(stderr, "make_results: %s\n", diag.text);
    kv_synthetic_free(s);
    return err != KV_OK;
}
