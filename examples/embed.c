/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim inside another program: one policy on the first example of a recording.
 *
 *     cc embed.c $(pkg-config --cflags --libs kvsim) -o embed && ./embed sample.h5
 */
#include <kvsim.h>

#include <stdio.h>

static kv_err replay(const char *path, kv_record *record, kv_diag *diag)
{
    kv_attention *trace = NULL;
    kv_point_list points = {0};
    kv_replay *replay = NULL;
    kv_replay_result result = {0};
    kv_mark mark = {.path = "embed.c"};
    kv_replay_options options = {.page_tokens = 16, .prefill_token_s = 1, .decode_step_s = 1};

    kv_err err = kv_attention_open(path, &trace, diag);
    if (err == KV_OK)
        err = kv_policy_parse_text("{snapkv: {keep: 0.3, window: 16, evict: chunked}}", &mark, "",
                                   &points, diag);
    if (err == KV_OK) {
        kv_replay_point point = {.policy = points.point[0].policy,
                                 .config = points.point[0].config,
                                 .directory = "",
                                 .chunk_tokens = 64};
        err = kv_replay_new(&point, 1, kv_attention_shape(trace), &options, &replay, diag);
    }
    if (err == KV_OK)
        err = kv_replay_example(replay, trace, 0, &result, diag);
    if (err == KV_OK)
        *record = result.record[0];
    kv_replay_result_fini(&result);
    kv_replay_free(replay);
    kv_point_list_fini(&points);
    kv_attention_close(trace);
    return err;
}

int main(int argc, char **argv)
{
    kv_record record;
    kv_diag diag = {0};
    char words[2048];
    if (replay(argc > 1 ? argv[1] : "sample.h5", &record, &diag) == KV_OK) {
        printf("kv_footprint %.4f, attention_recall %.4f\n", record.value[KV_M_FOOTPRINT],
               record.value[KV_M_RECALL]);
        return 0;
    }
    kv_diag_format(&diag, words, sizeof words);
    fprintf(stderr, "embed: %s\n", words);
    return 1;
}
