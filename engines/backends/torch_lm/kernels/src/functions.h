// Functions of vectors, within a unit or two in the last place. A NaN stays one: it stands second in `larger` and
// `smaller`, which give that one back.
#pragma once
#include "simd.h"

// 2^r for r in [-1/2, 1/2]; exact at 0.
INLINE vec exp2_near(vec r) {
    vec y = fused(r, splat(0.00015353361959569156f), splat(0.0013398875016719103f));
    y = fused(r, y, splat(0.00961843691766262f));
    y = fused(r, y, splat(0.055503323674201965f));
    y = fused(r, y, splat(0.24022647738456726f));
    y = fused(r, y, splat(0.6931471824645996f));
    return fused(r, y, splat(1.0f));
}

// 0 below 2^-126.5, infinite above 2^127.5
INLINE vec vexp2(vec x) {
    x = smaller(splat(128.0f), larger(splat(-127.0f), x));
    vec whole = rounded(x);
    return exp2_near(x - whole) * power_of_two(whole);
}

INLINE vec vexp(vec x) {
    x = smaller(splat(88.72284f), larger(splat(-88.02969f), x));
    vec whole = rounded(x * splat(1.44269504f));
    vec r = fused(x, splat(1.44269504f), splat(0) - whole); // log2(e) in two parts, so that large x lose nothing
    return exp2_near(fused(x, splat(1.9259630e-8f), r)) * power_of_two(whole);
}

INLINE vec vtanh(vec x) {
    vec square = x * x;
    vec y = fused(square, splat(-0.005717043299227953f), splat(0.020650586113333702f));
    y = fused(square, y, splat(-0.05374349653720856f));
    y = fused(square, y, splat(0.13331490755081177f));
    y = fused(square, y, splat(-0.3333328366279602f));
    vec far = splat(1.0f) - splat(2.0f) / (vexp(x + x) + splat(1.0f));
    return where_less(magnitude(x), splat(0.625f), fused(square * y, x, x), far);
}

INLINE vec silu(vec x) { return x / (splat(1) + vexp(splat(0) - x)); }

// 0.5 * (1 + tanh(z)) is 1 / (1 + exp(-2 * z)).
INLINE vec gelu_tanh(vec x) {
    vec z = fused(x * x * x, splat(0.044715f), x) * splat(-1.5957691216f);
    return x / (splat(1) + vexp(z));
}
