#include "scratch.h"

void *scratch(int which, i64 bytes) {
    static _Thread_local struct { void *memory; i64 bytes; } all[SCRATCHES];
    if (bytes > all[which].bytes) {
        free(all[which].memory);
        all[which].bytes = (bytes + 4095) / 4096 * 4096;
        all[which].memory = aligned_alloc(64, all[which].bytes);
        if (!all[which].memory) all[which].bytes = 0;
    }
    return all[which].memory;
}
