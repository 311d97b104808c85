// Everything that is there once for each element type. Expects T and SUFFIX.
#define PASTE(name, suffix) name##_##suffix
#define PASTE_EXPANDED(name, suffix) PASTE(name, suffix)
#define NAME(name) PASTE_EXPANDED(name, SUFFIX)
#define LOAD NAME(load)
#define WIDE NAME(wide)
#define LOAD_SOME NAME(load_some)
#define STORE_SOME NAME(store_some)

// The first `count` lanes, and 0 behind them.
INLINE vec LOAD_SOME(const T *p, i64 count) {
    if (count >= LANES) return LOAD(p);
    T lane[LANES] = {0};
    memcpy(lane, p, sizeof(T) * count);
    return LOAD(lane);
}

INLINE void STORE_SOME(T *p, vec x, i64 count) {
    if (count >= LANES) {
        NAME(store)(p, x);
    } else {
        T lane[LANES];
        NAME(store)(lane, x);
        memcpy(p, lane, sizeof(T) * count);
    }
}

#include "attend.h"
#include "norms.h"
#include "write.h"

#undef PASTE
#undef PASTE_EXPANDED
#undef NAME
#undef LOAD
#undef WIDE
#undef LOAD_SOME
#undef STORE_SOME
#undef T
#undef SUFFIX
