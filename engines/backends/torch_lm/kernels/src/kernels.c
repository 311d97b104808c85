// Attention, norms and activations for all element types, by the instructions that the compiler was told to use. NaNs
// and infinities go where arithmetic takes them (no -ffast-math). Every sum has one order, so equal rows give equal bits.
#include "functions.h"
#include "tasks.h"

#define T float
#define SUFFIX f32
#include "typed.h"
#define T bf16
#define SUFFIX bf16
#include "typed.h"
#define T f16
#define SUFFIX f16
#include "typed.h"
