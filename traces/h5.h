/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* HDF5 behind one door: the lock, messages that name the object, and reads that trust nothing.
 *
 * HDF5 is not safe to call from two threads unless it was built so, and its state belongs to the
 * process; so all of kvsim's calls are made between kv__h5_enter and kv__h5_leave, which hold the
 * one lock there is. Everything below but kv__h5_probe expects the caller to have entered.
 *
 * Files come from anywhere. Objects are opened one name at a time and only through links that stay
 * in the file; types and shapes are checked before anything is read. */
#ifndef KVSIM_TRACES_H5_H
#define KVSIM_TRACES_H5_H

#include "sim/base/diag.h"

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/* What enter found and leave puts back: HDF5 prints errors unless told otherwise, per thread. */
typedef struct kv__h5_guard {
    H5E_auto2_t print;
    void *closure;
    bool saved;
} kv__h5_guard;

void kv__h5_enter(kv__h5_guard *guard);
void kv__h5_leave(const kv__h5_guard *guard);

/* An open object and what messages call it. */
typedef struct kv__h5 {
    hid_t id;         /* below 0: not open */
    const char *file; /* borrowed */
    char name[256];   /* "/examples/0003/probs" */
} kv__h5;

enum { KV__H5_ANY = -1, KV__H5_MAX_TEXT = 4096 };

/* Runs attempt(closure) in a child process and tells how that ended. HDF5 1.10 crashes on some
 * damaged files and loops for ever on others; what was tried on a file in a child without harm is
 * then done here. The caller has entered, which makes the child's HDF5 sound. */
typedef enum kv__h5_end {
    KV__H5_RETURNED, /* or could not be tried */
    KV__H5_CRASHED,
    KV__H5_ENDLESS
} kv__h5_end;
kv__h5_end kv__h5_survives(void (*attempt)(void *), void *closure, int cpu_seconds);

/* Is this the name of an HDF5 file? */
bool kv__h5_probe(const char *path);

/* Opens a file for reading; `path` is borrowed. */
kv_err kv__h5_open(const char *path, kv__h5 *file, kv_diag *diag) KV_MUST_USE;
/* Opens the group or dataset (H5I_GROUP, H5I_DATASET) that a link of `parent` leads to. Where there
 * is no such link: an error if `required`, else an object that is not open. `access` is H5P_DEFAULT
 * or a dataset access list. */
kv_err kv__h5_open_child(const kv__h5 *parent, const char *name, H5I_type_t type, bool required,
                         hid_t access, kv__h5 *child, kv_diag *diag) KV_MUST_USE;
/* Closes what is open; may be called twice. */
void kv__h5_close(kv__h5 *object);

/* Refuses links that leave the file or lead nowhere, in this group alone. `names`, which may be
 * NULL, gets the names of all links in byte order; free it with kv__h5_free_names. */
kv_err kv__h5_check_links(const kv__h5 *group, char ***names, int *count,
                          kv_diag *diag) KV_MUST_USE;
void kv__h5_free_names(char **names, int count);

bool kv__h5_has_attribute(const kv__h5 *object, const char *name);
/* Scalar attributes. Integers and reals may be stored in any numeric type, text as a string of
 * fixed or variable length. */
kv_err kv__h5_get_int(const kv__h5 *object, const char *name, long long least, long long most,
                      long long *out, kv_diag *diag) KV_MUST_USE;
kv_err kv__h5_get_real(const kv__h5 *object, const char *name, double *out,
                       kv_diag *diag) KV_MUST_USE;
/* *out is for the caller to free. */
kv_err kv__h5_get_text(const kv__h5 *object, const char *name, char **out,
                       kv_diag *diag) KV_MUST_USE;

/* Checks rank and extents (KV__H5_ANY fits all) and that the numbers stand in this file. Extents go
 * into `found`, which may be NULL. */
kv_err kv__h5_check_dataset(const kv__h5 *dataset, H5T_class_t type, int rank,
                            const long long *extents, long long *found, kv_diag *diag) KV_MUST_USE;
/* Reads a whole dataset of integers as `memory_type` (a native one). */
kv_err kv__h5_read_all(const kv__h5 *dataset, hid_t memory_type, void *out,
                       kv_diag *diag) KV_MUST_USE;

/* Says that an object is wrong ("FILE: NAME: ..."). */
kv_err kv__h5_wrong(const kv__h5 *object, kv_diag *diag, const char *format, ...) KV_PRINTF(3, 4);
/* The same with HDF5's own words for its last failure at the end. */
kv_err kv__h5_failed(const kv__h5 *object, kv_diag *diag, const char *what);

#endif
