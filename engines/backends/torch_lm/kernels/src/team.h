// Threads that help with loops. Nobody waits for one that has no time: what it does not begin, the caller does.
//
// OpenMP waits for all its threads at the end of every loop, and there are a hundred loops in a step: where other
// processes want the same cores, two threads were ten times as slow as one.
#pragma once
#include "simd.h"

typedef void Body(void *context, i64 first, i64 end);

// Calls the body for all of [0, count), in runs of up to `grain`, here and on up to threads - 1 others. Returns when all
// of it is done. In which order, and where, is chance. Unless it `wakes`, only those help who are awake, because they
// helped a moment ago: to wake one takes longer than a short loop.
void team(i64 count, i64 grain, Body *body, void *context, int threads, int wakes);

// A grain for loops whose rounds are alike.
INLINE i64 even_grain(i64 count, int threads) { return (count + 4 * threads - 1) / (4 * threads); }
