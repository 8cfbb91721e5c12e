/* test.h - the smallest harness that serves: named tests, checks that go on after a failure, and a
 * count at the end. */
#ifndef WSPUSH_TEST_H
#define WSPUSH_TEST_H

#include "buf.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static int test_passed, test_failed;
static bool test_good = true; /* of the present test */

static inline bool test_check(bool condition, const char *file, int line, const char *text)
{
    if (!condition) {
        printf("FAIL %s:%d: %s\n", file, line, text);
        test_good = false;
    }
    return condition;
}

/* Notes a failure and goes on; its value is the condition's. */
#define CHECK(condition) test_check((condition), __FILE__, __LINE__, #condition)

/* Formats a text; the last 64 stay valid. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
static inline const char *
textf(const char *format, ...)
{
    static char texts[64][4096];
    static unsigned count;
    char *text = texts[count++ % COUNT(texts)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof texts[0], format, arguments);
    va_end(arguments);
    return text;
}

/* The same bytes in memory of just their size, the caller's to free: a sanitizer sees a step past
 * the end. */
static inline char *exact_bytes(struct str bytes)
{
    char *copy = malloc(bytes.length ? bytes.length : 1);

    if (!copy)
        abort();
    if (bytes.length)
        memcpy(copy, bytes.at, bytes.length);
    return copy;
}

/* The same as a view. */
static inline struct str exact_copy(struct str bytes)
{
    return (struct str){exact_bytes(bytes), bytes.length};
}

static inline void free_copy(struct str text)
{
    free((void *)(uintptr_t)text.at);
}

/* Drops the first `count` bytes, at most all. */
static inline void buf_consume(struct buf *buf, size_t count)
{
    buf->length -= count < buf->length ? count : buf->length;
    if (buf->length)
        memmove(buf->at, buf->at + count, buf->length);
}

/* The next of a row of numbers that is the same in every run; *state must not begin with 0. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Counts and prints a test that has run; it has passed if none of its checks failed. */
static inline void test_report(const char *name)
{
    if (test_good)
        test_passed++;
    else
        test_failed++;
    printf("%s %s\n", test_good ? "ok  " : "FAIL", name);
    fflush(stdout);
    test_good = true;
}

static inline void test_run(const char *name, void (*test)(void))
{
    test();
    test_report(name);
}

/* The same between a set-up and a tear-down. */
static inline void test_run_between(const char *name, void (*begin)(void), void (*test)(void),
                                    void (*end)(void))
{
    begin();
    test();
    end();
    test_report(name);
}

/* Tests between a set-up and a tear-down, which get the test's number for them. */
struct test {
    const char *name;
    void (*run)(void);
    int fixture;
};

#define TEST(name, fixture)                                                                        \
    {                                                                                              \
#name, name, fixture                                                                       \
    }

static inline void test_run_all(const struct test *tests, size_t count, void (*begin)(int fixture),
                                void (*end)(int fixture))
{
    for (size_t i = 0; i < count; i++) {
        begin(tests[i].fixture);
        tests[i].run();
        end(tests[i].fixture);
        test_report(tests[i].name);
    }
}

/* Prints the count; its value is the exit status of the test program. */
static inline int test_finish(void)
{
    printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed > 0;
}

#endif
