/* scarce.h - allocations that fail when a test says so. The including test defines
 * scarce_refuses(), and its program is linked with ALLOCATIONS of the Makefile. */
#ifndef WSPUSH_TEST_SCARCE_H
#define WSPUSH_TEST_SCARCE_H

#include <stdbool.h>
#include <stddef.h>

/* Called for each allocation: true if it is to fail. */
static bool scarce_refuses(void);

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return scarce_refuses() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return scarce_refuses() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return scarce_refuses() ? NULL : __real_realloc(old, size);
}

#endif
