/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks YAML documents: trees and their places, what is refused and in which words, aliases, merge
 * keys, setting keys, writing and reading back. Expected trees follow the YAML specification. */
#include "tests/kv_test.h"

#include "sim/base/yaml.h"

static kv_document *parse(const char *text)
{
    kv_document *document = NULL;
    kv_diag diag = {0};
    if (kv_document_parse("e.yaml", text, strlen(text), &document, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    return document;
}

static char *written(const kv_document *document)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_document_write(document, out), KV_OK);
    fclose(out);
    return text;
}

static void nodes_know_where_they_stand(void **state)
{
    kv_document *d = parse("name: x\nlist: [1, 'two',\n  ~]\nmap:\n  deep: {a: yes}\n");
    const kv_node *root = kv_document_root(d);
    assert_int_equal(kv_node_get_kind(root), KV_NODE_MAP);
    assert_int_equal(kv_node_count(root), 3);
    assert_string_equal(kv_node_key(root, 1), "list");
    const kv_node *list = kv_node_find(root, "list");
    assert_int_equal(kv_node_count(list), 3);
    bool quoted;
    assert_string_equal(kv_node_text(kv_node_at(list, 0), &quoted), "1");
    assert_false(quoted);
    assert_string_equal(kv_node_text(kv_node_at(list, 1), &quoted), "two");
    assert_true(quoted);
    assert_null(kv_node_text(kv_node_at(list, 2), NULL));
    kv_mark mark = kv_node_mark(kv_node_at(list, 2));
    assert_string_equal(mark.path, "e.yaml");
    assert_int_equal(mark.line, 3);
    assert_int_equal(mark.column, 3);
    mark = kv_node_key_mark(kv_node_find(root, "map"), 0);
    assert_int_equal(mark.line, 5);
    assert_int_equal(mark.column, 3);
    assert_null(kv_node_find(root, "absent"));
    assert_null(kv_node_find(list, "absent"));
    kv_document_free(d);
}

/* Each text, of the given bytes (0: strlen), and the message that it must give. */
static const struct {
    const char *text;
    size_t bytes;
    const char *message;
} malformed[] = {
    {"", 0, "e.yaml:1:1: there is nothing here; expected YAML"},
    {"# only a comment\n", 0, "e.yaml:1:1: there is nothing here; expected YAML"},
    {"a: 1\na: 2\n", 0, "e.yaml:2:1: key 'a' was given before, on line 1; expected it once"},
    {"m: {b: 1, c: 2, b: 3}", 0,
     "e.yaml:1:17: key 'b' was given before, on line 1; expected it once"},
    {"a: 1\n---\nb: 2\n", 0,
     "e.yaml:2:1: a second document starts here; expected one document in a file"},
    {"a: [1, 2\nb: 3\n", 0,
     "e.yaml:2:2: not YAML: did not find expected ',' or ']' while parsing "
     "a flow sequence that starts on line 1"},
    {"a:\n\tb: 1\n", 0,
     "e.yaml:2:1: not YAML: found character that cannot start any token while scanning for the "
     "next token that starts on line 2; a tab cannot indent, expected spaces"},
    {"a: 'x\n", 0,
     "e.yaml:2:1: not YAML: found unexpected end of stream while scanning a quoted "
     "scalar that starts on line 1"},
    {"a: b: c\n", 0, "e.yaml:1:5: not YAML: mapping values are not allowed in this context"},
    {"a: *x\n", 0, "e.yaml:1:4: alias *x has no anchor; expected &x before it"},
    {"a: &x [1, *x]\n", 0,
     "e.yaml:1:11: alias *x stands inside what it names; a document cannot "
     "contain itself"},
    {"a: !!python/object 1\n", 0,
     "e.yaml:1:4: tag 'tag:yaml.org,2002:python/object' has no meaning here; leave it out"},
    {"a: !local [1]\n", 0, "e.yaml:1:4: tag '!local' has no meaning here; leave it out"},
    {"? [1, 2]\n: 3\n", 0, "e.yaml:1:3: a key is a list, a mapping or an alias; expected a name"},
    {"&k a: 1\n*k : 2\n", 0, "e.yaml:2:1: a key is a list, a mapping or an alias; expected a name"},
    {"~: 1\n", 0, "e.yaml:1:1: a key is empty; expected a name"},
    {"a: \"x\\0y\"\n", 0, "e.yaml:1:4: text holds a NUL character; leave it out"},
    {"a: 1\nb: \0\n", 9, "e.yaml:2:4: a NUL byte; expected UTF-8 text"},
    {"a: 1\nb: \xff\n", 0,
     "e.yaml:2:4: invalid leading UTF-8 octet (byte 255); expected UTF-8 text"},
    {"a: 1\nb: \xc3(\n", 0, NULL},
    {"a: \x01\n", 0,
     "e.yaml:1:4: control characters are not allowed (byte 1); expected UTF-8 "
     "text"},
    {"<<: 3\na: 1\n", 0,
     "e.yaml:1:5: << takes a mapping or a list of mappings, such as << : *name"},
    {"<<: {a: 1}\n<<: {b: 1}\n", 0, "e.yaml:2:1: << was given before; expected one << with a list"},
    {"%YAML 7.3\n---\na: 1\n", 0, NULL},
    {"a: &a\n", 0, NULL},
    {"- a\nb: c\n", 0, NULL},
    {"{", 0, NULL},
    {": 1\n", 0, NULL},
    {"a: |\n  x\n y\n", 0, NULL},
};

static void malformed_text_is_refused_at_its_place(void **state)
{
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        kv_document *d = NULL;
        kv_diag diag = {0};
        size_t bytes = malformed[i].bytes ? malformed[i].bytes : strlen(malformed[i].text);
        kv_err err = kv_document_parse("e.yaml", malformed[i].text, bytes, &d, &diag);
        if (strcmp(malformed[i].text, "a: &a\n") == 0) { /* an anchored nothing is a value */
            assert_int_equal(err, KV_OK);
            kv_document_free(d);
            continue;
        }
        if (err != KV_ERR_INPUT)
            fail_msg("accepted: %s", malformed[i].text);
        assert_true(diag.line > 0 && diag.column > 0);
        char words[1600];
        kv_diag_format(&diag, words, sizeof words);
        if (malformed[i].message != NULL)
            assert_string_equal(words, malformed[i].message);
    }
}

static void files_that_cannot_be_read(void **state)
{
    kv_document *d = NULL;
    kv_diag absent = {0}, folder = {0}, endless = {0};
    assert_int_equal(kv_document_read("no/such.yaml", &d, &absent), KV_ERR_INPUT);
    assert_string_equal(absent.path, "no/such.yaml");
    assert_string_equal(absent.text, "cannot be opened: No such file or directory");
    assert_int_equal(kv_document_read("/", &d, &folder), KV_ERR_INPUT);
    assert_string_equal(folder.text, "cannot be read: Is a directory; expected a file");
    assert_int_equal(kv_document_read("/dev/zero", &d, &endless), KV_ERR_INPUT);
    assert_non_null(strstr(endless.text, "is larger than 16777216 bytes"));
}

static void aliases_are_shared_and_merged(void **state)
{
    kv_document *d = parse("base: &b {x: 1, y: 2}\nother: &o {x: 9, z: 3}\n"
                           "same: *b\nboth: {y: 7, <<: [*b, *o]}\n");
    const kv_node *root = kv_document_root(d);
    assert_ptr_equal(kv_node_find(root, "base"), kv_node_find(root, "same"));
    const kv_node *both = kv_node_find(root, "both");
    assert_int_equal(kv_node_count(both), 3); /* y is explicit, x comes from the first, z */
    assert_string_equal(kv_node_text(kv_node_find(both, "y"), NULL), "7");
    assert_string_equal(kv_node_text(kv_node_find(both, "x"), NULL), "1");
    assert_string_equal(kv_node_text(kv_node_find(both, "z"), NULL), "3");
    kv_document_free(d);
}

/* Nine levels of nine aliases: 9^9 values, the published "billion laughs". */
static void explosions_are_refused(void **state)
{
    char text[4096] = "a: &a [x, x, x, x, x, x, x, x, x]\n";
    for (char c = 'b'; c <= 'i'; c++) {
        char line[128];
        snprintf(line, sizeof line, "%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c,
                 c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1);
        strcat(text, line);
    }
    kv_document *d = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_document_parse("e.yaml", text, strlen(text), &d, &diag), KV_ERR_INPUT);
    assert_int_equal(diag.line, 6); /* 9 + 9^2 + ... + 9^5 = 66429 fit, 9^6 = 531441 does not */
    assert_non_null(strstr(diag.text, "more than 100000 values"));
}

static void repeat(char *out, const char *unit, int times)
{
    for (int i = 0; i < times; i++)
        strcat(out, unit);
}

static void deep_nesting_is_refused(void **state)
{
    static const char *const units[] = {"[", "{a: ", "- ", "? "};
    char *text = malloc(1 << 20);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        kv_document *d = NULL;
        kv_diag diag = {0};
        text[0] = '\0';
        repeat(text, units[u], 20000);
        assert_int_equal(kv_document_parse("e.yaml", text, strlen(text), &d, &diag), KV_ERR_INPUT);
        assert_true(diag.line > 0);
    }
    text[0] = '\0'; /* 64 levels are the most: 63 lists and the value in them */
    repeat(text, "[", 63);
    strcat(text, "x");
    repeat(text, "]", 63);
    kv_document_free(parse(text));
    memmove(text + 1, text, strlen(text) + 1);
    text[0] = '[';
    strcat(text, "]");
    kv_document *d = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_document_parse("e.yaml", text, strlen(text), &d, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.text, "nested deeper than 64 levels; expected fewer");
    free(text);
}

static void set(kv_document *d, const char *key, const char *value)
{
    kv_diag diag = {0};
    if (kv_document_set(d, key, value, "--set", &diag) != KV_OK)
        fail_msg("%s", diag.text);
}

static void keys_are_set_and_made(void **state)
{
    kv_document *d = parse("a: &x {k: 1, l: 2}\nb: *x\nc:\n");
    set(d, "b.k", "5");
    set(d, "c.deep.er", "[1, {q: 'z'}]");
    set(d, "new", "64");
    char *text = written(d);
    /* What shared b's mapping keeps its value. */
    assert_string_equal(text, "a:\n  k: 1\n  l: 2\nb:\n  k: 5\n  l: 2\nc:\n  deep:\n    er:\n"
                              "    - 1\n    - q: 'z'\nnew: 64\n");
    free(text);
    kv_mark mark = kv_node_mark(kv_node_find(kv_document_root(d), "new"));
    assert_string_equal(mark.path, "--set");
    assert_int_equal(mark.line, 0);
    kv_document_free(d);
}

static void keys_that_cannot_be_set(void **state)
{
    static const struct {
        const char *key, *value, *message;
    } cases[] = {
        {"a.b", "1", "--set: a is a value, not a mapping; set it as a whole"},
        {"l.0", "1", "--set: l is a list, not a mapping; set it as a whole"},
        {"", "1", "--set: key '' has an empty part; expected one like attention.chunk_size"},
        {"m..k", "1",
         "--set: key 'm..k' has an empty part; expected one like "
         "attention.chunk_size"},
        {".m", "1", NULL},
        {"m.", "1", NULL},
        {"m.k", "", "--set: there is nothing here; expected YAML"},
        {"m.k", "[1", NULL},
        {"m.k", "{a: 1, a: 2}", "--set: key 'a' was given before; expected it once"},
        {"a.b.c", "1", NULL},
    };
    kv_document *d = parse("a: 1\nl: [1]\nm: {k: 1}\n");
    char *before = written(d);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_diag diag = {0};
        char words[1600];
        assert_int_equal(kv_document_set(d, cases[i].key, cases[i].value, "--set", &diag),
                         KV_ERR_INPUT);
        kv_diag_format(&diag, words, sizeof words);
        if (cases[i].message != NULL)
            assert_string_equal(words, cases[i].message);
        char *after = written(d);
        assert_string_equal(before, after);
        free(after);
    }
    char deep[256] = "a";
    repeat(deep, ".a", 100);
    kv_diag diag = {0};
    assert_int_equal(kv_document_set(d, deep, "1", "--set", &diag), KV_ERR_INPUT);
    free(before);
    kv_document_free(d);
}

static bool same_tree(const kv_node *a, const kv_node *b)
{
    if (kv_node_get_kind(a) != kv_node_get_kind(b) || kv_node_count(a) != kv_node_count(b))
        return false;
    if (kv_node_get_kind(a) == KV_NODE_SCALAR) {
        bool quoted_a, quoted_b;
        const char *s = kv_node_text(a, &quoted_a), *t = kv_node_text(b, &quoted_b);
        return s == NULL || t == NULL ? s == t : strcmp(s, t) == 0 && quoted_a == quoted_b;
    }
    for (int i = 0; i < kv_node_count(a); i++) {
        if (kv_node_get_kind(a) == KV_NODE_MAP && strcmp(kv_node_key(a, i), kv_node_key(b, i)) != 0)
            return false;
        if (!same_tree(kv_node_at(a, i), kv_node_at(b, i)))
            return false;
    }
    return true;
}

static void what_is_written_reads_back(void **state)
{
    static const char *const texts[] = {
        "a: 1\nb: [x, 'y', \"z\\n\\tw\"]\nc: {d: {e: []}, f: {}}\n",
        "- '1'\n- 1\n- 'null'\n- null\n- ''\n- ~\n- 'true'\n- \"it's\"\n",
        ("long: 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
         "fifteen sixteen seventeen eighteen nineteen twenty'\n"),
        "text: |\n  line one\n   line two\n\n  # no comment\nfold: >\n  a\n  b\n",
        "'a: b': '- c'\n'{': '}'\n'#': '%'\n\"\\u00e9\": \xc3\xa9\n'? x': '! y'\n",
        "url: http://x/y#z\nrange: a,b\nwindows: C:\\x\nspace: ' lead and trail '\n",
        "scalar",
        "[]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        kv_document *first = parse(texts[i]);
        char *text = written(first);
        kv_document *second = parse(text);
        if (!same_tree(kv_document_root(first), kv_document_root(second)))
            fail_msg("%s became %s", texts[i], text);
        char *again = written(second);
        assert_string_equal(text, again);
        free(text);
        free(again);
        kv_document_free(first);
        kv_document_free(second);
    }
}

typedef struct config {
    double keep;
    long long window, bytes;
    bool on;
    char *path;
} config;

static const kv_param table[] = {
    {"keep", KV_REAL, offsetof(config, keep), NULL, 0, 1, NULL, 0, "fraction", "share"},
    {"window", KV_INT, offsetof(config, window), "16", 0, INFINITY, NULL, 0, "tokens", "window"},
    {"bytes", KV_BYTES, offsetof(config, bytes), NULL, 1, INFINITY, NULL, KV_PARAM_REQUIRED, "",
     "size of the tier"},
    {"on", KV_BOOL, offsetof(config, on), "false", 0, 0, NULL, 0, "", "switch"},
    {"path", KV_PATH, offsetof(config, path), NULL, 0, 0, NULL, 0, "", "file"},
    {.name = NULL}};

static kv_err fill(const char *text, config *c, char words[1600])
{
    static const char *const also[] = {"child", NULL};
    kv_document *d = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_document_parse("dir/e.yaml", text, strlen(text), &d, &diag), KV_OK);
    assert_int_equal(kv_params_default(table, c, &diag), KV_OK);
    kv_err err = kv_params_parse(table, c, kv_document_root(d), also, &diag);
    kv_diag_format(&diag, words, 1600);
    kv_document_free(d);
    return err;
}

static void mappings_fill_configurations(void **state)
{
    config c = {0};
    char words[1600];
    assert_int_equal(
        fill("{keep: 0.25, bytes: 2KiB, on: true, path: x.tsv, child: [1]}", &c, words), KV_OK);
    assert_true(c.keep == 0.25 && c.bytes == 2048 && c.on && c.window == 16);
    assert_string_equal(c.path, "dir/x.tsv");
    kv_params_fini(table, &c);
    assert_int_equal(fill("{bytes: 1B, path: /abs/x.tsv}", &c, words), KV_OK);
    assert_string_equal(c.path, "/abs/x.tsv");
    kv_params_fini(table, &c);
}

static void wrong_settings_are_errors_at_their_place(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"bytes: 1B\nwidnow: 3",
         "dir/e.yaml:2:1: unknown key 'widnow', did you mean 'window'; known here: keep, window, "
         "bytes, on, path, child"},
        {"bytes: 1B\nzzzzzz: 3",
         "dir/e.yaml:2:1: unknown key 'zzzzzz'; known here: keep, window, bytes, on, path, child"},
        {"keep: 0.5", "dir/e.yaml:1:1: 'bytes' is missing: size of the tier"},
        {"bytes: 5", "dir/e.yaml:1:8: bytes: '5' needs a unit: TiB, TB, GiB, GB, MiB, MB, KiB, KB, "
                     "kB or B"},
        {"keep: 1.01", "dir/e.yaml:1:7: keep: expected a fraction from 0 to 1, found '1.01'"},
        {"keep: '0.5'",
         "dir/e.yaml:1:7: keep: expected a fraction from 0 to 1, found text in quotes"},
        {"keep:", "dir/e.yaml:1:6: keep: expected a fraction from 0 to 1, found nothing"},
        {"keep: [0.1, 0.2]", "dir/e.yaml:1:7: keep: expected a fraction from 0 to 1, found a list"},
        {"keep: {a: 1}", "dir/e.yaml:1:7: keep: expected a fraction from 0 to 1, found a mapping"},
        {"on: yes", "dir/e.yaml:1:5: on: expected true or false, found 'yes'"},
        {"path: ''", "dir/e.yaml:1:7: path: expected the name of a file, found ''"},
        {"[1]", "dir/e.yaml:1:1: expected a mapping of settings, found a list"},
        {"5", "dir/e.yaml:1:1: expected a mapping of settings, found a value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        config c = {0};
        char words[1600];
        assert_int_equal(fill(cases[i].text, &c, words), KV_ERR_INPUT);
        assert_string_equal(words, cases[i].message);
        kv_params_fini(table, &c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_know_where_they_stand),
        cmocka_unit_test(malformed_text_is_refused_at_its_place),
        cmocka_unit_test(files_that_cannot_be_read),
        cmocka_unit_test(aliases_are_shared_and_merged),
        cmocka_unit_test(explosions_are_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(keys_are_set_and_made),
        cmocka_unit_test(keys_that_cannot_be_set),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(mappings_fill_configurations),
        cmocka_unit_test(wrong_settings_are_errors_at_their_place),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
