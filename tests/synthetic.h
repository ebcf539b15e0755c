/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A made-up sweep for tests of results, plots and reports: records follow formulas of the point,
 * the example and the turn, so that a test can work out what must come of them. */
#ifndef KVSIM_TESTS_SYNTHETIC_H
#define KVSIM_TESTS_SYNTHETIC_H

#include "analysis/points.h"

typedef enum kv_synthetic_size {
    KV_SYNTHETIC_SMALL, /* 2 tasks, 7 examples, 5 points: quick to run again and again */
    KV_SYNTHETIC_LARGE  /* 4 tasks, 40 examples, curves as a real sweep has them */
} kv_synthetic_size;

typedef struct kv_synthetic {
    kv_points_plan plan;
    kv_run_info info;
    kv_point_info *point;
    kv_example_info *example;
    char (*text)[128]; /* what the points' JSON and the examples' names are kept in */
} kv_synthetic;

kv_synthetic *kv_synthetic_new(kv_synthetic_size size);
void kv_synthetic_free(kv_synthetic *synthetic);

/* Records of one example, [points][turns + 1]; free them. */
kv_record *kv_synthetic_records(const kv_synthetic *synthetic, int example);

/* Puts one example, with made-up retained sets if asked. */
kv_err kv_synthetic_put(const kv_synthetic *synthetic, kv_points *points, int example,
                        bool with_sets, kv_diag *diag) KV_MUST_USE;

/* Puts every example that the run wants, in order or in reverse, and finishes its points. */
kv_err kv_synthetic_points(const kv_synthetic *synthetic, kv_run *run, bool reverse, bool with_sets,
                           kv_diag *diag) KV_MUST_USE;

/* The whole run, into a file. */
kv_err kv_synthetic_run(const kv_synthetic *synthetic, const char *path, bool resume, bool reverse,
                        bool with_sets, kv_diag *diag) KV_MUST_USE;

#endif
