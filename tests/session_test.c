/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks traces of sessions: coding agents, conversations, and how turns follow in the open and in
 * the closed loop. Expected times are worked out by hand from the small documents below. */
#include "tests/kv_test.h"
#include "tests/request_text.h"

/* Three requests of the main line at 0, 10 and 40 s, answered in 4, 5 and 1 s; a sub-agent called
 * at 12 s, when the request at 10 s is still under way, so it follows the first one; its requests
 * at 0 and 6 s of its own time. */
static const char agent[] =
    "{\"id\": \"a\", \"block_size\": 64, \"hash_id_scope\": \"local\", \"requests\": ["
    "{\"t\": 0.0, \"type\": \"n\", \"in\": 200, \"out\": 5, \"hash_ids\": [1, 2, 3], \"api_time\": "
    "4.0, "
    "\"think_time\": 0.0},"
    "{\"t\": 10.0, \"type\": \"n\", \"in\": 300, \"out\": 6, \"hash_ids\": [1, 2, 4, 5], "
    "\"api_time\": 5.0, "
    "\"think_time\": 6.5},"
    "{\"t\": 12.0, \"type\": \"subagent\", \"agent_id\": \"x\", \"requests\": ["
    "{\"t\": 0.0, \"type\": \"s\", \"in\": 64, \"out\": 7, \"hash_ids\": [9], \"api_time\": 2.0, "
    "\"think_time\": 0.0},"
    "{\"t\": 6.0, \"type\": \"s\", \"in\": 130, \"out\": 8, \"hash_ids\": [9, 10]}]},"
    "{\"t\": 40.0, \"type\": \"n\", \"in\": 320, \"out\": 0, \"hash_ids\": [1, 2, 4, 5], "
    "\"api_time\": 1.0, "
    "\"think_time\": 25.0}]}";

static const int64_t second = 1000000000;

static void coding_agent_open_loop(void **state)
{
    request_list l = read_text("a.json", agent, NULL, "session_arrivals=together");
    static const struct {
        int seconds, prompt, output, agent, after, think, blocks, last;
    } want[] = {{0, 200, 5, 0, -1, -1, 3, 3},
                {10, 300, 6, 0, 0, 6500, 4, 5},
                {12, 64, 7, 1, 0, 8000, 1, 9},
                {18, 130, 8, 1, 2, 4000, 2, 10}, /* assumed: 18 s - (12 s + 2 s) */
                {40, 320, 0, 0, 1, 25000, 4, 5}};
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 5);
    for (int i = 0; i < 5; i++) {
        const kv_request *r = &l.request[i];
        assert_int_equal(r->arrival_ns, want[i].seconds * second);
        assert_int_equal(r->turn, i);
        assert_int_equal(r->session, 0);
        assert_int_equal(r->prompt_tokens, want[i].prompt);
        assert_int_equal(r->output_tokens, want[i].output);
        assert_int_equal(r->agent, want[i].agent);
        assert_int_equal(r->after_turn, want[i].after);
        if (want[i].think >= 0)
            assert_int_equal(r->think_time_ns, want[i].think * (second / 1000));
        assert_int_equal(r->block_count, want[i].blocks);
        assert_int_equal(r->block_tokens, 64);
        assert_int_equal(r->blocks[want[i].blocks - 1] - r->blocks[0],
                         want[i].last - (want[i].agent == 1 ? 9 : 1));
    }
    assert_true(l.request[0].blocks[0] == l.request[4].blocks[0]);
    assert_int_equal(l.counts.assumed, 1);
    assert_int_equal(l.counts.zero_output, 1);
    free_requests(&l);
}

/* A server that takes 100 s for every answer: each turn comes its think time after. */
static void coding_agent_closed_loop(void **state)
{
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader;
    kv_request r;
    int64_t ns;
    write_bytes("a.json", agent, sizeof agent - 1);
    assert_int_equal(kv_request_spec_init(&spec, "a.json", NULL, &diag), KV_OK);
    assert_int_equal(kv_request_spec_set(&spec, "loop", "closed", NULL, &diag), KV_OK);
    assert_int_equal(kv_request_open(&spec, &reader, &diag), KV_OK);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_OK);
    assert_int_equal(r.turn, 0);
    assert_int_equal(r.arrival_ns, 0);
    assert_int_equal(kv_request_peek(reader, &ns, &diag), KV_END);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_END);
    kv_request_completed(reader, 0, 0, 100 * second);
    assert_int_equal(kv_request_peek(reader, &ns, &diag), KV_OK);
    assert_int_equal(ns, 106500000000);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_OK);
    assert_int_equal(r.turn, 1);
    assert_int_equal(r.arrival_ns, ns);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_OK);
    assert_int_equal(r.turn, 2);
    assert_int_equal(r.arrival_ns, 108 * second);
    assert_int_equal(r.block_count, 1);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_END);
    kv_request_completed(reader, 0, 1, 206 * second);
    kv_request_completed(reader, 0, 2, 208 * second);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_OK);
    assert_int_equal(r.turn, 3);
    assert_int_equal(r.arrival_ns, 212 * second);
    assert_int_equal(r.block_count, 2);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_OK);
    assert_int_equal(r.turn, 4);
    assert_int_equal(r.arrival_ns, 231 * second);
    assert_int_equal(r.block_count, 4);
    kv_request_completed(reader, 0, 4, 300 * second);
    kv_request_completed(reader, 0, 3, 312 * second);
    assert_int_equal(kv_request_next(reader, &r, &diag), KV_END);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    unlink("a.json");
}

/* Local ids mean nothing in another session; global ones do. */
static void scope_of_block_ids(void **state)
{
    static const char document[] =
        "{\"block_size\": 64, \"hash_id_scope\": \"%s\", \"requests\": [{\"t\": "
        "0, \"in\": 64, \"out\": 1, \"hash_ids\": [7]}]}";
    char text[300];
    for (int global = 0; global < 2; global++) {
        mkdir("sessions", 0777);
        snprintf(text, sizeof text, document, global ? "global" : "local");
        write_bytes("sessions/1.json", text, strlen(text));
        write_bytes("sessions/2.json", text, strlen(text));
        write_bytes("sessions/README", "no trace", 8);
        const char *const paths[] = {"sessions", "sessions/*.json"};
        for (int p = 0; p < 2; p++) {
            request_list l =
                read_requests(paths[p], NULL, "session_arrivals=even session_rate=0.5");
            assert_string_equal(l.message, "");
            assert_int_equal(l.count, 2);
            assert_int_equal(l.request[1].arrival_ns, 2 * second);
            assert_int_equal(l.request[1].session, 1);
            assert_int_equal(l.request[0].blocks[0] == l.request[1].blocks[0], global);
            free_requests(&l);
        }
        unlink("sessions/1.json");
        unlink("sessions/2.json");
        unlink("sessions/README");
        rmdir("sessions");
    }
    request_list none = read_requests("no/such/*.json", "coding-agent", NULL);
    assert_contains(none.message, "there is no such trace file");
}

#define SESSION(requests) "{\"block_size\": 64, \"requests\": [" requests "]}"

static void malformed_sessions(void **state)
{
    static const struct {
        const char *text, *message;
    } table[] = {
        {"", "x:1: not JSON"},
        {"[]", "x: not a JSON object"},
        {"{\"requests\": []}", "'block_size' is missing"},
        {"{\"block_size\": 64}", "'requests' is missing"},
        {"{\"block_size\": 0, \"requests\": []}", "'block_size' is 0"},
        {SESSION("5"), "requests[0]: not an object"},
        {SESSION("{\"in\": 5, \"out\": 1}"), "requests[0]: 't' is missing"},
        {SESSION("{\"t\": 1, \"in\": 5, \"out\": -1}"), "request at t 1: 'out' is negative"},
        {SESSION("{\"t\": 1, \"in\": 0, \"out\": 1}"), "request at t 1: the prompt has no tokens"},
        {SESSION("{\"t\": 1, \"in\": 64, \"out\": 1, \"hash_ids\": [1, 2]}"),
         "2 blocks of 64 tokens"},
        {SESSION("{\"t\": 1, \"in\": 64, \"out\": 1, \"hash_ids\": [4294967296]}"),
         "is above 4294967295"},
        {SESSION("{\"t\": 9, \"in\": 64, \"out\": 1}, {\"t\": 8, \"in\": 64, \"out\": 1}"),
         "'t' goes back"},
        {SESSION("{\"t\": -9, \"in\": 64, \"out\": 1}"), "negative"},
        {SESSION("{\"t\": 1, \"in\": 64, \"out\": 1, \"think_time\": -2}"),
         "'think_time' is negative"},
        {SESSION("{\"t\": \"1\", \"in\": 64, \"out\": 1}"), "'t' is not a number"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        request_list l = read_text("x", table[i].text, "coding-agent", NULL);
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, table[i].message);
        free_requests(&l);
    }
    char deep[4000] = "";
    for (int i = 0; i < 40; i++)
        strcat(deep, "{\"t\": 0, \"block_size\": 64, \"requests\": [");
    for (int i = 0; i < 40; i++)
        strcat(deep, "]}");
    request_list l = read_text("x", deep, "coding-agent", NULL);
    assert_contains(l.message, "sub-agents nest too deep");
    free_requests(&l);
}

/* A malformed session is skipped whole, its neighbours are not. */
static void malformed_session_is_skipped(void **state)
{
    mkdir("sessions", 0777);
    write_bytes("sessions/1.json", agent, sizeof agent - 1);
    write_bytes("sessions/2.json", agent, sizeof agent / 2);
    write_bytes("sessions/3.json", agent, sizeof agent - 1);
    request_list l = read_requests("sessions", "coding-agent", "on_error=skip");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 10);
    assert_int_equal(l.counts.skipped, 1);
    free_requests(&l);
    unlink("sessions/1.json");
    unlink("sessions/2.json");
    unlink("sessions/3.json");
    rmdir("sessions");
}

/* Messages of 8, 12 (given as tokens: 7), 9 and 4 characters at 4 per token: 2, 7, 3 (rounded up)
 * and 1 tokens. Turn 0: prompt 2, answer 7; turn 1: prompt 2 + 7 + 3, answer 1. The second
 * conversation begins with an answer, which is context, and its two answers in a row are one turn.
 */
static void conversations(void **state)
{
    static const char text[] =
        " [ {\"id\": \"x\", \"conversations\": [{\"from\": \"human\", \"value\": \"12345678\"},"
        "{\"from\": \"gpt\", \"value\": \"123456789012\", \"tokens\": 7},"
        "{\"from\": \"human\", \"value\": \"12345678\xc3\xa9\"}, {\"from\": \"gpt\", \"value\": "
        "\"1234\"},"
        "{\"from\": \"human\", \"value\": \"no answer\"}]},\n"
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"12345678\"},"
        "{\"role\": \"user\", \"content\": \"[{\\\"]]\"}, {\"role\": \"assistant\", \"content\": "
        "\"\"},"
        "{\"role\": \"assistant\", \"content\": \"1\"}]},"
        "{\"conversations\": []} ]\n";
    request_list l = read_text(
        "g.json", text, NULL,
        "session_arrivals=even session_rate=1 think_time=300ms block_tokens=4 on_error=skip");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, 3);
    assert_int_equal(l.counts.skipped, 1); /* the last has no turn */
    const kv_request *r = l.request;
    assert_int_equal(r[0].prompt_tokens, 2);
    assert_int_equal(r[0].output_tokens, 7);
    assert_int_equal(r[0].block_count, 0);
    assert_int_equal(r[1].arrival_ns, 300000000);
    assert_int_equal(r[1].prompt_tokens, 12);
    assert_int_equal(r[1].output_tokens, 1);
    assert_int_equal(r[1].block_count, 3);
    assert_int_equal(r[1].turn, 1);
    assert_int_equal(r[1].after_turn, 0);
    assert_int_equal(r[2].arrival_ns, second);
    assert_int_equal(r[2].session, 1);
    assert_int_equal(r[2].prompt_tokens, 4);
    assert_int_equal(r[2].output_tokens, 0);
    assert_true(r[2].blocks[0] != r[1].blocks[0]);
    assert_int_equal(l.counts.assumed, 3);
    free_requests(&l);
    static const struct {
        const char *text, *message;
    } bad[] = {{"[", "x:1: not JSON: expected a value"},
               {"{}", "x:1: not JSON: expected an array"},
               {"[{}", "x:1: not JSON: expected the rest of a value"},
               {"[{\"messages\": [{\"role\": \"user\", \"tokens\": 1}, {\"role\": \"assistant\", "
                "\"tokens\": 1}]}\n{}]",
                "x:2: not JSON: expected ',' or ']'"},
               {"[\n{\"messages\": []}]", "x:2: a conversation without a turn"},
               {"[] x", "x:1: not JSON: expected nothing behind the array"},
               {"[\n{}]", "x:2: neither 'conversations' nor 'messages'"},
               {"[{\"messages\": [{\"role\": \"user\"}]}]", "x:1: message 0: neither 'value'"},
               {"[{\"messages\": [{\"role\": \"user\", \"tokens\": -1}]}]", "'tokens' is negative"},
               {"[{\"messages\": [{\"role\": \"user\", \"tokens\": 3000000000}, {\"role\": "
                "\"assistant\", \"tokens\": 1}]}]",
                "above 2147483647 tokens"},
               {"[{\"messages\": [] \"x\": 1}]", "not JSON"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        l = read_text("x", bad[i].text, "sharegpt", NULL);
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, bad[i].message);
        free_requests(&l);
    }
}

/* Sessions overlap: what each says must not depend on the others. Every turn is given out once, in
 * order of arrival, turns of a session in order; in the closed loop each exactly its think time
 * after the answer before. */
static void many_sessions_in_both_loops(void **state)
{
    enum { MOST_SESSIONS = 2000 };
    static int64_t ended[MOST_SESSIONS];
    for (int closed = 0; closed < 2; closed++) {
        kv_diag diag = {0};
        kv_request_spec spec = {0};
        kv_request_reader *reader;
        kv_request r;
        int64_t now = 0;
        int given = 0, turn[MOST_SESSIONS] = {0};
        assert_int_equal(kv_request_spec_init(&spec, NULL, "synth", &diag), KV_OK);
        static const char *const settings[] = {"turns",        "5", "requests", "2000",
                                               "session_rate", "3", "contexts", "7",
                                               "think_time",   "2s"};
        for (int i = 0; i < 10; i += 2)
            assert_int_equal(kv_request_spec_set(&spec, settings[i], settings[i + 1], NULL, &diag),
                             KV_OK);
        assert_int_equal(
            kv_request_spec_set(&spec, "loop", closed ? "closed" : "open", NULL, &diag), KV_OK);
        assert_int_equal(kv_request_open(&spec, &reader, &diag), KV_OK);
        while (kv_request_next(reader, &r, &diag) == KV_OK) {
            assert_true(r.arrival_ns >= now);
            now = r.arrival_ns;
            assert_true(r.session < MOST_SESSIONS);
            assert_int_equal(r.turn, turn[r.session]++);
            assert_int_equal(r.after_turn, r.turn - 1);
            if (r.turn > 0 && closed)
                assert_int_equal(r.arrival_ns, ended[r.session] + r.think_time_ns);
            ended[r.session] = r.arrival_ns;
            kv_request_completed(reader, r.session, r.turn, r.arrival_ns);
            given++;
        }
        assert_int_equal(given, 2000);
        kv_request_close(reader);
        kv_request_spec_fini(&spec);
    }
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coding_agent_open_loop),       cmocka_unit_test(coding_agent_closed_loop),
        cmocka_unit_test(scope_of_block_ids),           cmocka_unit_test(malformed_sessions),
        cmocka_unit_test(malformed_session_is_skipped), cmocka_unit_test(conversations),
        cmocka_unit_test(many_sessions_in_both_loops),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run_in_folder("session_test.files", run);
}
