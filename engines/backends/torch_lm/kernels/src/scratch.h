// Memory to work in, of the thread that asks: it stays, as large as was ever needed.
#pragma once
#include <stdlib.h>

#include "simd.h"

enum { LAID_OUT, QKV, SEEN, INNER, RESULT, NORMED, KEPT_ROWS, SCRATCHES };

// Returns null if there is no memory.
void *scratch(int which, i64 bytes);
