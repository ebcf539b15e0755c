/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/measure.h"

#include <assert.h>

static const kv_measure_info measure_table[KV_MEASURES] = {
    [KV_M_FOOTPRINT] = {"kv_footprint", "fraction",
                        "KV entries summed over steps, over that sum for full causal attention"},
    [KV_M_PEAK] = {"kv_peak", "fraction", "most KV entries at any step, over N L Hkv"},
    [KV_M_FOOTPRINT_HEAD] = {"kv_footprint_head", "fraction",
                             "kv_footprint when each KV head is compacted into pages of its own"},
    [KV_M_PEAK_HEAD] = {"kv_peak_head", "fraction",
                        "kv_peak when each KV head is compacted into pages of its own"},
    [KV_M_FOOTPRINT_PAGE] = {"kv_footprint_page", "fraction",
                             "kv_footprint when a page of a layer is free only once all its "
                             "entries are gone"},
    [KV_M_PEAK_PAGE] = {"kv_peak_page", "fraction",
                        "kv_peak when a page of a layer is free only once all its entries are "
                        "gone"},
    [KV_M_BYTES_SECONDS] = {"kv_bytes_seconds", "byte seconds",
                            "bytes of KV in memory, integrated over time"},
    [KV_M_PEAK_BYTES] = {"kv_bytes_peak", "bytes", "bytes of KV at the peak"},
    [KV_M_RECALL] = {"attention_recall", "fraction",
                     "share of attention on entries in memory: mean over answer rows, layers and "
                     "query heads"},
    [KV_M_RECALL_NO_SINKS] = {"attention_recall_no_sinks", "fraction",
                              "attention_recall of the attention beyond the first 4 tokens"},
    [KV_M_RECALL_WORST_HEAD] = {"attention_recall_worst_head", "fraction",
                                "least attention_recall of a layer and query head"},
    [KV_M_RECALL_P5] = {"attention_recall_p5", "fraction",
                        "5th percentile of the recall over answer rows, layers and query heads"},
    [KV_M_EVIDENCE_RECALL] = {"evidence_recall", "fraction",
                              "share of the attention on evidence whose entries are in memory, all "
                              "heads pooled"},
    [KV_M_EVIDENCE_WORST] = {"evidence_recall_worst_row", "fraction",
                             "evidence_recall of the answer row where it is least"},
    [KV_M_EVIDENCE_ALIVE] = {"evidence_alive", "fraction",
                             "share of the evidence's KV entries in memory at the last answer row"},
    [KV_M_SPAN_COMPLETE] = {"span_complete", "fraction",
                            "share of evidence spans that are whole in a head that attends to "
                            "them"},
    [KV_M_SPAN_ANY] = {"span_any", "fraction",
                       "1 if at least one evidence span is whole in a head that attends to it"},
    [KV_M_EVICTED_EVERYWHERE] = {"evicted_everywhere", "fraction",
                                 "global eviction ratio: share of evidence tokens evicted in every "
                                 "head"},
    [KV_M_OUTPUT_ERROR] = {"output_error", "ratio",
                           "relative error of the attention output: mean over answer rows, layers "
                           "and query heads"},
    [KV_M_OUTPUT_WORST] = {"output_error_worst_row", "ratio",
                           "output_error of the answer row where it is greatest"},
    [KV_M_EVIDENCE_OUTPUT] = {"evidence_output", "fraction",
                              "unchanged share of the output of heads that read evidence, of the "
                              "answer row where it is least"},
    [KV_M_QUERY_INTACT] = {"query_intact", "fraction",
                           "share of attention that the layers below the heads that read evidence "
                           "kept, of the answer row where it is least"},
    [KV_M_FOOTPRINT_BYTES] = {"kv_footprint_bytes", "fraction",
                              "kv_footprint in bytes as stored, metadata included, over the full "
                              "cache's"},
    [KV_M_FOOTPRINT_DEVICE] = {"kv_footprint_device", "fraction",
                               "the part of kv_footprint_bytes that is on the device, where the "
                               "method keeps entries in host memory; all of it elsewhere"},
    [KV_M_READS] = {"kv_reads", "fraction",
                    "KV entries that decode steps of the answers read, over those of the full "
                    "cache"},
    [KV_M_READS_BYTES] = {"kv_reads_bytes", "fraction",
                          "kv_reads in bytes as stored, with the metadata that is read to choose"},
    [KV_M_FETCHED] = {"kv_fetched_bytes", "bytes",
                      "bytes of KV fetched from host memory per decode step of the answers"},
    [KV_M_READS_PREFILL] = {"kv_reads_prefill", "fraction",
                            "share of scores that rows of the prompt compute; policies that read "
                            "less in prefill only"},
    [KV_M_PREFILL_RECALL] = {"prefill_recall", "fraction",
                             "share of attention that those rows read"},
};

const kv_measure_info *kv_measure_get(kv_measure measure)
{
    assert(measure >= 0 && measure < KV_MEASURES);
    return &measure_table[measure];
}
