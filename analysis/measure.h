/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a replay measures: one record per example, turn and point.
 *
 * The table kv_measure_info names every measure once; the columns of the results database, the
 * documentation and the JSON output come from it. */
#ifndef KVSIM_ANALYSIS_MEASURE_H
#define KVSIM_ANALYSIS_MEASURE_H

/* Recall of a row is the share of its recorded probability on entries that are alive when it
 * attends. "Answer rows" of a turn are those that predict its answer tokens: answer_start-1 ..
 * answer_end-2. */
typedef enum kv_measure {
    KV_M_FOOTPRINT,       /* kv_footprint: entries over steps / those of full causal attention */
    KV_M_PEAK,            /* kv_peak: most entries at one step / (N L Hkv) */
    KV_M_FOOTPRINT_HEAD,  /* as footprint, each KV head compacted into pages of its own */
    KV_M_PEAK_HEAD,       /* as peak, likewise */
    KV_M_FOOTPRINT_PAGE,  /* as footprint, a page of a layer freed when all its entries are gone */
    KV_M_PEAK_PAGE,       /* as peak, likewise */
    KV_M_BYTES_SECONDS,   /* kv_bytes_seconds: bytes in memory integrated over time */
    KV_M_PEAK_BYTES,      /* kv_bytes_peak: bytes of the peak */
    KV_M_RECALL,          /* attention_recall: mean over answer rows, layers, query heads */
    KV_M_RECALL_NO_SINKS, /* same, of the mass beyond the first 4 tokens */
    KV_M_RECALL_WORST_HEAD, /* least over (layer, query head) of the mean over answer rows */
    KV_M_RECALL_P5,         /* 5th percentile over answer rows, layers, query heads */
    KV_M_EVIDENCE_RECALL,   /* alive share of the attention mass on evidence, all heads pooled */
    KV_M_EVIDENCE_WORST,    /* same, of the answer row where it is least */
    KV_M_EVIDENCE_ALIVE, /* share of (layer, KV head, evidence token) alive at the last answer row
                          */
    KV_M_SPAN_COMPLETE,  /* share of evidence spans whole in a head that attends to them */
    KV_M_SPAN_ANY,       /* 1 if at least one evidence span is whole in such a head */
    KV_M_EVICTED_EVERYWHERE, /* share of evidence tokens evicted in every head (GER) */
    KV_M_OUTPUT_ERROR,    /* output_error: mean |o'-o|/|o| over answer rows, layers, query heads */
    KV_M_OUTPUT_WORST,    /* the same mean of the answer row where it is greatest */
    KV_M_EVIDENCE_OUTPUT, /* unchanged share of what heads read from evidence, least row */
    KV_M_QUERY_INTACT,    /* attention kept in the layers below those heads, least row */
    KV_M_FOOTPRINT_BYTES, /* kv_footprint_bytes: as footprint, in bytes as stored over plain ones */
    KV_M_FOOTPRINT_DEVICE, /* kv_footprint_device: of that, what is not in host memory */
    KV_M_READS,            /* kv_reads: entries that decode steps read / those of the full cache */
    KV_M_READS_BYTES,      /* kv_reads_bytes: the same in bytes as stored, with metadata */
    KV_M_FETCHED,          /* kv_fetched_bytes: bytes fetched from host memory per decode step */
    KV_M_READS_PREFILL,    /* kv_reads_prefill: entries that prompt rows read / all before them */
    KV_M_PREFILL_RECALL,   /* prefill_recall: share of attention that prompt rows read */
    KV_MEASURES
} kv_measure;

typedef struct kv_measure_info {
    const char *name; /* column name */
    const char *unit; /* "fraction", "bytes", ... */
    const char *help; /* one sentence */
} kv_measure_info;

/* Facts about a measure. */
const kv_measure_info *kv_measure_get(kv_measure measure);

/* The measures of one example and turn at one point; NaN where a measure does not apply. */
typedef struct kv_record {
    double value[KV_MEASURES];
} kv_record;

#endif
