/* Failing memory: the linker puts ours in the place of malloc, calloc and realloc, in all that is linked statically. */
#ifndef TESTS_SUPPORT_FAILING_MEMORY_H
#define TESTS_SUPPORT_FAILING_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* The test's own: is there no memory for the allocation that is asked for now? */
bool allocation_fails(void);

/* What the linker has put aside. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);

#endif
