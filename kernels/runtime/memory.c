/* Zeroed, aligned memory. calloc gives large blocks straight from the system, so pages that are never touched cost
 * nothing; that a cache starts as zeros also keeps NaNs of earlier owners out of masked positions. */
#include <stdlib.h>

#include "internal.h"

enum { ALIGNMENT = 64 };

bool moec_block_new(moec_block *block, size_t count, size_t bytes) {
    size_t size;
    if (__builtin_mul_overflow(count, bytes, &size) || size > PTRDIFF_MAX - ALIGNMENT) return false;
    block->raw = calloc(size + ALIGNMENT, 1);
    if (!block->raw) return false;
    block->at = (char *)(((uintptr_t)block->raw + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return true;
}

void moec_block_free(moec_block *block) {
    free(block->raw);
    *block = (moec_block){NULL, NULL};
}
