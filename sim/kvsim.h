/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim as a library: everything public. `pkg-config --cflags --libs kvsim` finds it.
 *
 * The shortest way through it: kv_attention_open a recording, kv_policy_parse_text a policy,
 * kv_replay_new and kv_replay_example; or kv_experiment_read a whole experiment and
 * kv_attention_run it into kv_results_open. A policy of your own is a kv_retention of yours in a
 * kv_replay_point.
 *
 * The library keeps no state of its own and never prints or ends the process. Two things belong to
 * the process and are left to the caller: gsl_set_error_handler_off(), without which GSL aborts on
 * its own errors, and H5Eset_auto2(H5E_DEFAULT, NULL, NULL), without which HDF5 prints. */
#ifndef KVSIM_H
#define KVSIM_H

#include "analysis/accuracy.h"
#include "analysis/critical.h"
#include "analysis/curves.h"
#include "analysis/measure.h"
#include "analysis/points.h"
#include "analysis/results.h"
#include "analysis/summary.h"
#include "models/catalogue.h"
#include "models/device.h"
#include "models/model.h"
#include "policies/counts.h"
#include "policies/method.h"
#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"
#include "sim/attention_run.h"
#include "sim/base/diag.h"
#include "sim/base/param.h"
#include "sim/base/yaml.h"
#include "sim/experiment.h"
#include "sim/footprint.h"
#include "sim/policy_spec.h"
#include "sim/replay/replay.h"
#include "sim/sweep.h"
#include "sim/sweep_plan.h"
#include "traces/attention.h"

#endif
