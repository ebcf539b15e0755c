/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How many tiers there may be. */
#ifndef KVSIM_SIM_SERVING_TIER_H
#define KVSIM_SIM_SERVING_TIER_H

enum { KV_MOST_TIERS = 4 }; /* below the GPU */

#endif
