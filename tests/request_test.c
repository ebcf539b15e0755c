/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the readers of request traces: every format on small files whose content is worked out by
 * hand, everything that may be malformed, compressed data whole and damaged, order and times. */
#include "tests/kv_test.h"
#include "tests/request_text.h"

#include "traces/field.h"

#include <zlib.h>
#include <zstd.h>

static const char mooncake_line[] =
    "{\"timestamp\": 1500, \"input_length\": 1000, \"output_length\": 7, \"hash_ids\": [4, 9]}\n";

/* --- Numbers
 * --------------------------------------------------------------------------------------- */

/* Seconds since 1970 from `date -u +%s`. */
static void times_are_exact(void **state)
{
    static const struct {
        const char *text;
        int unit;
        int64_t ns;
    } good[] = {
        {"2023-11-16 18:15:46.6805900", KV_UNIT_S, 1700158546680590000},
        {"2000-02-29 00:00:00", KV_UNIT_S, 951782400000000000},
        {"2024-05-10T00:00:00.009930+02:00", KV_UNIT_S, 1715292000009930000},
        {"2024-05-09T22:00:00Z", KV_UNIT_S, 1715292000000000000},
        {"1969-12-31 23:59:59.9999999996", KV_UNIT_S, 0},
        {"0.1", KV_UNIT_S, 100000000},
        {"1699990546.680590123", KV_UNIT_S, 1699990546680590123},
        {" 27482 ", KV_UNIT_MS, 27482000000},
        {"1e3", KV_UNIT_US, 1000000},
        {"2.5e-9", KV_UNIT_S, 3},
        {"-1.5", KV_UNIT_NS, -2},
        {"9223372036854775807", KV_UNIT_NS, INT64_MAX},
        {"0e999999999999", KV_UNIT_S, 0},
        {"1e-400", KV_UNIT_S, 0},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t ns = -7;
        const char *wrong = kv__read_time(good[i].text, good[i].unit, &ns);
        if (wrong != NULL || ns != good[i].ns)
            fail_msg("'%s' is %lld: %s", good[i].text, (long long)ns, wrong ? wrong : "");
    }
    static const char *const bad[] = {"",
                                      "nan",
                                      "inf",
                                      "0x10",
                                      "1e",
                                      "1.2.3",
                                      "12 34",
                                      "9223372036854775808",
                                      "1e30",
                                      "--1",
                                      "2023-13-01 00:00:00",
                                      "2023-02-29 00:00:00",
                                      "2023-01-01 24:00:00",
                                      "23-01-01 00:00:00",
                                      "12:30"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ns;
        if (kv__read_time(bad[i], KV_UNIT_NS, &ns) == NULL)
            fail_msg("'%s' passes for a time", bad[i]);
    }
}

static void token_counts_are_whole(void **state)
{
    static const struct {
        const char *text, *wrong;
        int32_t value;
    } table[] = {{"0", NULL, 0},
                 {"2147483647", NULL, INT32_MAX},
                 {"12.0", NULL, 12},
                 {"1.2e1", NULL, 12},
                 {"2147483648", "is above 2147483647 tokens", 0},
                 {"99999999999999999999999", "is too large", 0},
                 {"-1", "is negative", 0},
                 {"1.5", "is not a whole number", 0},
                 {"1e-3", "is not a whole number", 0},
                 {"NaN", "is not a number", 0},
                 {"", "is empty, expected a number", 0}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int32_t value = 0;
        const char *wrong = kv__read_tokens(table[i].text, &value);
        assert_string_equal(wrong ? wrong : "", table[i].wrong ? table[i].wrong : "");
        assert_int_equal(value, table[i].value);
    }
}

/* Ids are read without a tree where they are plain, and by jansson where they are not: the same. */
static void mooncake_ids(void **state)
{
    static const char *const rows[] = {
        "{\"hash_ids\": [7, 0, 900000000000000007], \"input_length\": 1500, \"output_length\": 1}",
        "{\"hash_ids\":[7,0,900000000000000007],\"input_length\":1500,\"output_length\":1}",
        "{ \"input_length\": 1500, \"output_length\": 1, \"hash_ids\" : [ 7 ,\t0 , "
        "900000000000000007 ] }",
        "{\"hash_ids\": [7.0, 0, 900000000000000007], \"input_length\": 1500, \"output_length\": "
        "1}",
        "{\"hash\\u005fids\": [7, 0, 900000000000000007], \"input_length\": 1500, "
        "\"output_length\": 1}",
        "{\"a\": {\"hash_ids\": [3]}, \"b\": \"\\\"hash_ids\", \"c\": \"hash_ids\", \"hash_ids\": "
        "[7, 0, 900000000000000007], \"input_length\": 1500, \"output_length\": 1}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        request_list l = read_text("x", rows[i], "mooncake", "arrivals=together");
        assert_string_equal(l.message, "");
        assert_int_equal(l.count, 1);
        assert_int_equal(l.request[0].block_count, 3);
        assert_int_equal(l.request[0].blocks[0], 7);
        assert_int_equal(l.request[0].blocks[1], 0);
        assert_int_equal(l.request[0].blocks[2], 900000000000000007);
        free_requests(&l);
    }
}

/* --- Formats
 * --------------------------------------------------------------------------------------- */

static void mooncake(void **state)
{
    request_list l = read_text(
        "m.jsonl",
        "{\"timestamp\": 1500, \"input_length\": 1000, \"output_length\": 7, \"hash_ids\": [4, "
        "9]}\n"
        "\n"
        "{\"output_length\": 0, \"input_length\": 1, \"timestamp\": 1501.25, \"session_id\": 12, "
        "\"turn\": 2, \"delay\": 250, \"extra\": {\"a\": [1]}}",
        NULL, NULL);
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 2);
    const kv_request *a = &l.request[0], *b = &l.request[1];
    assert_int_equal(a->number, 0);
    assert_int_equal(a->arrival_ns, 0);
    assert_int_equal(a->prompt_tokens, 1000);
    assert_int_equal(a->output_tokens, 7);
    assert_int_equal(a->block_count, 2);
    assert_int_equal(a->block_tokens, 512);
    assert_int_equal(a->blocks[0], 4);
    assert_int_equal(a->blocks[1], 9);
    assert_true(a->session == KV_NO_SESSION);
    assert_int_equal(a->think_time_ns, -1);
    assert_int_equal(b->number, 1);
    assert_int_equal(b->arrival_ns, 1250000);
    assert_int_equal(b->block_count, 0);
    assert_int_equal(b->block_tokens, 0);
    assert_int_equal(b->session, 12);
    assert_int_equal(b->turn, 2);
    assert_int_equal(b->after_turn, 1);
    assert_int_equal(b->think_time_ns, 250000000);
    assert_int_equal(l.counts.requests, 2);
    assert_int_equal(l.counts.zero_output, 1);
    free_requests(&l);
}

/* CRLF, seven fractional digits, no line end at the end, as the published files are. */
static void azure(void **state)
{
    request_list l = read_text("a.csv",
                               "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                               "2023-11-16 18:15:46.6805900,374,44\r\n"
                               "2023-11-16 18:15:50.9951690,396,109",
                               NULL, NULL);
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 2);
    assert_int_equal(l.request[1].arrival_ns, 4314579000);
    assert_int_equal(l.request[1].prompt_tokens, 396);
    assert_int_equal(l.request[1].output_tokens, 109);
    free_requests(&l);
}

static void burstgpt(void **state)
{
    request_list l =
        read_text("b.csv",
                  "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                  "5,ChatGPT,472,18,490,Conversation log\n"
                  "45,GPT-4,1087,0,1087,API log\n"
                  "45,ChatGPT,3,4,7,API log\n",
                  NULL, NULL);
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 3);
    assert_int_equal(l.request[1].arrival_ns, 40000000000);
    assert_int_equal(l.request[1].prompt_tokens, 1087);
    assert_int_equal(l.request[0].tenant, 0);
    assert_int_equal(l.request[1].tenant, 1);
    assert_int_equal(l.request[2].tenant, 0);
    assert_int_equal(l.counts.zero_output, 1);
    free_requests(&l);
    l = read_text("b.csv",
                  "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total "
                  "tokens,Log Type\n"
                  "5.5,s-1,1,ChatGPT,472,18,490,Conversation log\n"
                  "6.0,,1,ChatGPT,472,18,490,API log\n",
                  NULL, NULL);
    assert_string_equal(l.message, "");
    assert_true(l.request[0].session != KV_NO_SESSION);
    assert_true(l.request[1].session == KV_NO_SESSION);
    assert_int_equal(l.request[1].arrival_ns, 500000000);
    free_requests(&l);
}

static void csv_by_column_names(void **state)
{
    static const char text[] = "out,who,t,in,think,s,turn,blocks\n"
                               "5,\"a, b\",10,1025,,x,0,7 8 9\n"
                               "6,c,30.5,2.0,4,x,1,\n";
    request_list l = read_text("c.csv", text, "csv",
                               "columns.arrival=t columns.prompt=in columns.output=out "
                               "columns.tenant=who columns.session=s columns.think_time=think "
                               "time_unit=ms");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 2);
    assert_int_equal(l.request[1].arrival_ns, 20500000);
    assert_int_equal(l.request[1].think_time_ns, 4000000);
    assert_int_equal(l.request[0].think_time_ns, -1);
    assert_int_equal(l.request[1].prompt_tokens, 2);
    assert_int_equal(l.request[1].tenant, 1);
    assert_true(l.request[0].session == l.request[1].session);
    assert_int_equal(l.request[1].turn, 1);
    assert_int_equal(l.request[0].block_count, 3);
    assert_int_equal(l.request[0].blocks[2], 9);
    assert_int_equal(l.request[1].block_count, 0);
    free_requests(&l);
    /* Columns of other tools are known by name; without arrival times a rate is needed. */
    static const char vidur[] = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n"
                                "3772,54,3826,69.85\n2015,156,2171,12.9\n";
    l = read_text("v.csv", vidur, NULL, NULL);
    assert_contains(l.message,
                    "v.csv:1: the trace records no arrival times: no column is called arrival, ");
    free_requests(&l);
    l = read_text("v.csv", vidur, NULL, "arrivals=even rate=4");
    assert_int_equal(l.count, 2);
    assert_int_equal(l.request[1].arrival_ns, 250000000);
    free_requests(&l);
    l = read_text("v.csv", vidur, NULL, "arrivals=together");
    assert_int_equal(l.request[1].arrival_ns, 0);
    assert_int_equal(l.request[1].prompt_tokens, 2015);
    free_requests(&l);
}

/* --- What is wrong
 * ----------------------------------------------------------------------------------- */

#define HEADER "TIMESTAMP,ContextTokens,GeneratedTokens\n"
#define ROW "2023-11-16 18:15:46.68,374,44\n"

static const struct {
    const char *format, *text, *message;
} malformed_traces[] = {
    {"mooncake", "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6}\n{oops}\n",
     "x:2:5: not JSON"},
    {"mooncake", "[1]\n", "x:1: not a JSON object"},
    {"mooncake", "{\"input_length\": 5, \"output_length\": 6}\n", "records no arrival times"},
    {"mooncake", "{\"timestamp\": 1, \"output_length\": 6}\n", "x:1: 'input_length' is missing"},
    {"mooncake", "{\"timestamp\": 1, \"input_length\": -5, \"output_length\": 6}\n",
     "x:1: 'input_length' is negative"},
    {"mooncake", "{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 6}\n",
     "x:1: the prompt has no tokens"},
    {"mooncake", "{\"timestamp\": 1, \"input_length\": 2147483648, \"output_length\": 6}\n",
     "x:1: 'input_length' is above 2147483647 tokens"},
    {"mooncake", "{\"timestamp\": 1, \"input_length\": 1.5, \"output_length\": 6}\n",
     "x:1: 'input_length' is not a whole number"},
    {"mooncake", "{\"timestamp\": 1, \"input_length\": \"5\", \"output_length\": 6}\n",
     "x:1: 'input_length' is not a whole number"},
    {"mooncake", "{\"timestamp\": NaN, \"input_length\": 5, \"output_length\": 6}\n", "not JSON"},
    {"mooncake", "{\"timestamp\": 1e300, \"input_length\": 5, \"output_length\": 6}\n",
     "x:1: 'timestamp' is too large"},
    {"mooncake",
     "{\"timestamp\": 99999999999999999999, \"input_length\": 5, \"output_length\": 6}\n",
     "x:1:34: not JSON: too big"},
    {"mooncake",
     "{\"timestamp\": 1, \"timestamp\": 2, \"input_length\": 5, \"output_length\": 6}\n",
     "x:1:28: not JSON: duplicate"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 513, \"output_length\": 6, \"hash_ids\": [1, -2]}\n",
     "x:1: 'hash_ids' is negative"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 513, \"output_length\": 6, \"hash_ids\": 5}\n",
     "x:1: 'hash_ids' is not an array"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 6, \"hash_ids\": [1, 2]}\n",
     "x:1: 2 blocks of 512 tokens are more than a prompt of 512 tokens has"},
    {"mooncake",
     "{\"timestamp\": 9, \"input_length\": 5, \"output_length\": 6}\n"
     "{\"timestamp\": 8, \"input_length\": 5, \"output_length\": 6}\n",
     "x:2: arrives 0.001 s before the request before it"},
    {"mooncake", "{\"timestamp\": -9e15, \"input_length\": 5, \"output_length\": 6}\n",
     "too large"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": [1, 02]}\n",
     "not JSON"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": [1, ]}\n",
     "not JSON"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": [1 2]}\n",
     "not JSON"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": [1, 2\n",
     "not JSON"},
    {"mooncake",
     "{\"hash_ids\": [1], \"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, "
     "\"hash_ids\": [1]}\n",
     "not JSON: duplicate"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": "
     "[99999999999999999999]}\n",
     "not JSON: too big"},
    {"mooncake",
     "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 6, \"hash_ids\": [1], "
     "\"hashes\": \"whole\"}\n",
     "x:1: 'hashes': expected \"chained\" or \"content\""},
    {"azure", "", "x: is empty"},
    {"azure", HEADER "2023-11-16 18:15:46.68,374\n", "x:2: 2 fields, expected 3"},
    {"azure", HEADER ROW "2023-11-16 18:15:46.68,-374,44\n",
     "x:3:24: column 'ContextTokens': '-374' is negative"},
    {"azure", HEADER "2023-11-16 18:15:46.68,374,\n",
     "x:2:28: column 'GeneratedTokens': '' is empty"},
    {"azure", HEADER "2023-11-16 18:15:46.68,nan,1\n", "x:2:24: column 'ContextTokens': 'nan'"},
    {"azure", HEADER "yesterday,374,44\n", "x:2:1: column 'TIMESTAMP': 'yesterday'"},
    {"azure", HEADER "2023-02-30 18:15:46.68,374,44\n", "does not exist"},
    {"azure", HEADER ROW "2023-11-16 18:15:46.67,374,44\n", "x:3: arrives 0.01 s before"},
    {"azure", "TIMESTAMP,Tokens,GeneratedTokens\n" ROW,
     "x:1: there is no column 'ContextTokens' for the prompt; there are: TIMESTAMP, Tokens"},
    {"csv", "arrival,prompt,output,blocks\n0,600,1,1 x\n", "is not a list of whole numbers"},
};

/* Each with the place that the message must name. */
static void malformed_traces_are_located(void **state)
{
    for (size_t i = 0; i < sizeof malformed_traces / sizeof malformed_traces[0]; i++) {
        request_list l = read_text("x", malformed_traces[i].text, malformed_traces[i].format, NULL);
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, malformed_traces[i].message);
        free_requests(&l);
    }
}

static void a_nul_byte_is_no_text(void **state)
{
    write_bytes("n.jsonl", "{\"a\": 1\0}\n", 11);
    request_list l = read_requests("n.jsonl", "mooncake", NULL);
    assert_contains(l.message, "n.jsonl:1: a NUL byte");
    free_requests(&l);
    unlink("n.jsonl");
}

static void an_empty_jsonl_has_no_requests(void **state)
{
    request_list l = read_text("e", "", "mooncake", NULL);
    assert_int_equal(l.err, KV_END);
    assert_int_equal(l.count, 0);
    l = read_text("e", "", NULL, NULL);
    assert_contains(l.message, "e: is empty");
    l = read_text("e", "hello\n", NULL, NULL);
    assert_contains(l.message, "name its format");
    l = read_requests("there/is/no/such.jsonl", NULL, NULL);
    assert_contains(l.message, "there/is/no/such.jsonl");
    assert_int_equal(l.err, KV_ERR_INPUT);
}

static void settings_are_checked(void **state)
{
    static const struct {
        const char *settings, *message;
    } table[] = {{"arrivals=poisson", "need `rate`"},
                 {"rate=2", "`rate` needs"},
                 {"speedup=0", "speedup"},
                 {"speedp=2", "did you mean 'speedup'"},
                 {"block_tokens=0", "block_tokens"},
                 {"columns.prompt=x", "has no setting 'columns.prompt'"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        request_list l = read_text("s", mooncake_line, "mooncake", table[i].settings);
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, table[i].message);
        free_requests(&l);
    }
    request_list l = read_text("s", mooncake_line, "moncake", NULL);
    assert_contains(l.message, "did you mean 'mooncake'");
}

static void malformed_rows_are_skipped_and_counted(void **state)
{
    request_list l = read_text("k.csv",
                               HEADER ROW "oops,1,1\n"
                                          "2023-11-16 18:15:46.69,1\n"
                                          "\"2023-11-16\"x,1,1\n"
                                          "2023-11-16 18:15:46.60,1,1\n"
                                          "2023-11-16 18:15:47.68,5,6\n",
                               NULL, "on_error=skip");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 2);
    assert_int_equal(l.counts.skipped, 4);
    assert_int_equal(l.request[1].prompt_tokens, 5);
    assert_int_equal(l.request[1].arrival_ns, 1000000000);
    free_requests(&l);
}

/* --- Packed files
 * -------------------------------------------------------------------------------------- */

static size_t gzip(const char *text, unsigned char *out, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)text;
    z.avail_in = (unsigned)strlen(text);
    z.next_out = out;
    z.avail_out = (unsigned)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

/* With a checksum, as the command line tool writes it: damage shows. */
static size_t zstd(const char *text, unsigned char *out, size_t room)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    size_t bytes = ZSTD_compress2(context, out, room, text, strlen(text));
    ZSTD_freeCCtx(context);
    assert_false(ZSTD_isError(bytes));
    return bytes;
}

/* Two frames or members behind one another are one text; the name of the file does not matter. */
static void packed_files_are_read(void **state)
{
    size_t (*const pack[])(const char *, unsigned char *, size_t) = {gzip, zstd};
    for (int p = 0; p < 2; p++) {
        unsigned char packed[2000];
        size_t first = pack[p](mooncake_line, packed, 1000);
        size_t both = first + pack[p](mooncake_line, packed + first, 1000);
        write_bytes("p", packed, both);
        request_list l = read_requests("p", NULL, NULL);
        assert_string_equal(l.message, "");
        assert_int_equal(l.count, 2);
        free_requests(&l);
        for (size_t cut = 5; cut < both; cut++) {
            if (cut == first)
                continue;
            write_bytes("p", packed, cut);
            l = read_requests("p", "mooncake", "on_error=skip");
            assert_int_equal(l.err, KV_ERR_INPUT);
            assert_contains(l.message, "p: ends in the middle of its compressed data");
            free_requests(&l);
        }
        packed[first / 2] ^= 0x55;
        packed[first / 2 + 1] ^= 0x55;
        write_bytes("p", packed, both);
        l = read_requests("p", "mooncake", "on_error=skip");
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, "p: the ");
        assert_contains(l.message, "data is damaged");
        free_requests(&l);
    }
    unlink("p");
}

/* --- Order and times ------------------------------------------------------------------------- */

static void sort_window_restores_order(void **state)
{
    char text[4000] = "", line[100];
    static const int times[] = {30, 10, 20, 20, 5, 60, 50, 50, 70};
    for (int i = 0; i < 9; i++) {
        snprintf(
            line, sizeof line,
            "{\"timestamp\": %d, \"input_length\": %d, \"output_length\": 1, \"hash_ids\": [%d]}\n",
            times[i], i + 1, i);
        strcat(text, line);
    }
    request_list l = read_text("w", text, "mooncake", "sort_window=4");
    assert_string_equal(l.message, "");
    static const int order[] = {5, 2, 3, 4, 1, 7, 8, 6, 9};
    assert_int_equal(l.count, 9);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(l.request[i].prompt_tokens, order[i]);
        assert_int_equal(l.request[i].blocks[0], order[i] - 1);
        assert_int_equal(l.request[i].arrival_ns, (times[order[i] - 1] - 5) * 1000000LL);
    }
    /* Given out after one behind them: 2, 3, 4 and 1 after 5; 6 after 8. */
    assert_int_equal(l.counts.reordered, 5);
    free_requests(&l);
    l = read_text("w", text, "mooncake", "sort_window=3");
    assert_contains(l.message, "before the request before it");
    free_requests(&l);
}

static void speedup_and_limit(void **state)
{
    static const char text[] = "{\"timestamp\": 100, \"input_length\": 1, \"output_length\": 1}\n"
                               "{\"timestamp\": 400, \"input_length\": 1, \"output_length\": 1}\n"
                               "{\"timestamp\": 900, \"input_length\": 1, \"output_length\": 1}\n";
    request_list l = read_text("u", text, "mooncake", "speedup=2 limit=2");
    assert_int_equal(l.count, 2);
    assert_int_equal(l.request[1].arrival_ns, 150000000);
    free_requests(&l);
    l = read_text("u", text, "mooncake", "speedup=1e-11");
    assert_contains(l.message, "exceeds 292 years");
    free_requests(&l);
}

/* The gaps of 20,000 arrivals: a Poisson process has mean 1/rate and variation 1; Gamma gaps have
 * the variation asked for. The standard error of the mean is variation/sqrt(n), of the variation
 * about as much again; five of them are allowed. */
static void drawn_arrivals_have_their_rate(void **state)
{
    enum { ROWS = 20000 };
    static char text[20 + 4 * ROWS];
    strcpy(text, "prompt,output\n");
    for (int i = 0; i < ROWS; i++)
        strcpy(text + 14 + 4 * i, "5,1\n");
    static const struct {
        const char *settings;
        double rate, variation;
    } table[] = {{"arrivals=poisson rate=8 seed=3", 8, 1},
                 {"arrivals=gamma rate=0.5 burstiness=3 seed=4", 0.5, 3},
                 {"arrivals=gamma rate=100 burstiness=0.25", 100, 0.25}};
    for (int t = 0; t < 3; t++) {
        request_list l = read_text("d", text, "csv", table[t].settings);
        assert_int_equal(l.count, ROWS);
        double sum = 0, squares = 0;
        for (int i = 1; i < l.count; i++) {
            double gap = (double)(l.request[i].arrival_ns - l.request[i - 1].arrival_ns) / 1e9;
            assert_true(gap >= 0);
            sum += gap;
            squares += gap * gap;
        }
        double mean = sum / (ROWS - 1), sd = sqrt(squares / (ROWS - 1) - mean * mean);
        double tolerance = 5 * table[t].variation / sqrt(ROWS);
        assert_close(mean * table[t].rate, 1, tolerance);
        assert_close(sd / mean, table[t].variation, 4 * tolerance);
        request_list again = read_text("d", text, "csv", table[t].settings);
        assert_int_equal(again.request[ROWS - 1].arrival_ns, l.request[ROWS - 1].arrival_ns);
        free_requests(&again);
        free_requests(&l);
    }
}

/* Contents 5 6 7 and 6 5 7 and 5 6 8: the third begins with two blocks of the first; nothing of the
 * second stands behind the same tokens as before. A trace that says so by itself, and one that has
 * to be told. */
static void contents_are_chained(void **state)
{
    static const char told[] =
        "{\"timestamp\": 0, \"input_length\": 6, \"output_length\": 1, \"hash_ids\": [5, 6, 7]}\n"
        "{\"timestamp\": 1, \"input_length\": 6, \"output_length\": 1, \"hash_ids\": [6, 5, 7]}\n"
        "{\"timestamp\": 2, \"input_length\": 6, \"output_length\": 1, \"hash_ids\": [5, 6, 8]}\n";
    static const char saying[] =
        "{\"timestamp\": 0, \"input_length\": 6, \"output_length\": 1, \"hash_ids\": [5, 6, 7], "
        "\"hashes\": \"content\"}\n";
    write_bytes("c", told, strlen(told));
    request_list l = read_requests("c", "mooncake", "block_tokens=2 hashes=content sort_window=2");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 3);
    const kv_request *a = &l.request[0], *b = &l.request[1], *c = &l.request[2];
    assert_int_equal(a->contents[2], 7);
    assert_int_equal(b->contents[0], 6);
    assert_int_equal(c->contents[2], 8);
    assert_true(c->blocks[0] == a->blocks[0] && c->blocks[1] == a->blocks[1]);
    for (int i = 0; i < 9; i++)
        for (int j = 0; j < i; j++)
            assert_true(l.request[i / 3].blocks[i % 3] != l.request[j / 3].blocks[j % 3] ||
                        (i / 3 == 2 && j / 3 == 0 && i % 3 == j % 3 && i % 3 < 2));
    request_list plain = read_requests("c", "mooncake", "block_tokens=2");
    assert_null(plain.request[1].contents);
    assert_int_equal(plain.request[1].blocks[0], 6);
    write_bytes("c", saying, strlen(saying));
    request_list said = read_requests("c", "mooncake", "block_tokens=2");
    assert_int_equal(said.request[0].contents[1], 6);
    assert_true(said.request[0].blocks[2] == a->blocks[2]);
    free_requests(&said);
    free_requests(&plain);
    free_requests(&l);
    unlink("c");
}

static void looking_ahead_changes_nothing(void **state)
{
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader;
    kv_request request;
    int64_t ns;
    write_bytes("l", mooncake_line, strlen(mooncake_line));
    assert_int_equal(kv_request_spec_init(&spec, "l", NULL, &diag), KV_OK);
    assert_int_equal(kv_request_open(&spec, &reader, &diag), KV_OK);
    assert_int_equal(kv_request_peek(reader, &ns, &diag), KV_OK);
    assert_int_equal(kv_request_peek(reader, &ns, &diag), KV_OK);
    assert_int_equal(ns, 0);
    assert_int_equal(kv_request_get_counts(reader)->requests, 0);
    assert_int_equal(kv_request_next(reader, &request, &diag), KV_OK);
    assert_int_equal(request.prompt_tokens, 1000);
    assert_int_equal(request.blocks[1], 9);
    assert_int_equal(kv_request_peek(reader, &ns, &diag), KV_END);
    assert_int_equal(kv_request_next(reader, &request, &diag), KV_END);
    assert_null(kv_request_first_skip(reader));
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    unlink("l");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_exact),
        cmocka_unit_test(token_counts_are_whole),
        cmocka_unit_test(mooncake),
        cmocka_unit_test(mooncake_ids),
        cmocka_unit_test(azure),
        cmocka_unit_test(burstgpt),
        cmocka_unit_test(csv_by_column_names),
        cmocka_unit_test(malformed_traces_are_located),
        cmocka_unit_test(a_nul_byte_is_no_text),
        cmocka_unit_test(an_empty_jsonl_has_no_requests),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(malformed_rows_are_skipped_and_counted),
        cmocka_unit_test(packed_files_are_read),
        cmocka_unit_test(sort_window_restores_order),
        cmocka_unit_test(speedup_and_limit),
        cmocka_unit_test(drawn_arrivals_have_their_rate),
        cmocka_unit_test(contents_are_chained),
        cmocka_unit_test(looking_ahead_changes_nothing),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run_in_folder("request_test.files", run);
}
