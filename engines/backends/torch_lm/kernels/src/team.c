#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define PATIENCE 4000 // looks at the bell before a helper sleeps: about 40 µs, longer than between two loops of a step

typedef struct {
    Body *body;
    void *context;
    i64 count, grain;
    atomic_llong next;
    atomic_int places; // left for helpers
} Job;

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER, door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static _Atomic(Job *) current;
static atomic_int inside, asleep; // helpers
static atomic_uint rings;
static int helpers; // guarded by `busy`

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

static void work(Job *job) {
    i64 first;
    while ((first = atomic_fetch_add(&job->next, job->grain)) < job->count) {
        i64 end = first + job->grain;
        job->body(job->context, first, end < job->count ? end : job->count);
    }
}

static unsigned await_ring(unsigned heard) {
    for (int i = 0; i < PATIENCE; i++) {
        if (atomic_load(&rings) != heard) return atomic_load(&rings);
        PAUSE();
    }
    pthread_mutex_lock(&door);
    atomic_fetch_add(&asleep, 1);
    while (atomic_load(&rings) == heard) pthread_cond_wait(&bell, &door);
    atomic_fetch_sub(&asleep, 1);
    pthread_mutex_unlock(&door);
    return atomic_load(&rings);
}

static void *help(void *unused) {
    unsigned heard = 0;
    for (;;) {
        heard = await_ring(heard);
        // Counted before it looks: a caller that has taken its job away waits for all who may have seen it.
        atomic_fetch_add(&inside, 1);
        Job *job = atomic_load(&current);
        if (job && atomic_fetch_sub(&job->places, 1) > 0) work(job);
        atomic_fetch_sub(&inside, 1);
    }
    return unused;
}

static void hire(int wanted) {
    pthread_t thread;
    while (helpers < wanted && !pthread_create(&thread, NULL, help, NULL)) {
        pthread_detach(thread);
        helpers++;
    }
}

void team(i64 count, i64 grain, Body *body, void *context, int threads, int wakes) {
    // The team helps one caller at a time.
    if (threads <= 1 || count <= grain || pthread_mutex_trylock(&busy)) {
        if (count > 0) body(context, 0, count);
        return;
    }
    hire(threads - 1);
    Job job = {.body = body, .context = context, .count = count, .grain = grain, .places = threads - 1};
    atomic_store(&current, &job);
    atomic_fetch_add(&rings, 1);
    if (wakes && atomic_load(&asleep)) {
        pthread_mutex_lock(&door);
        pthread_cond_broadcast(&bell);
        pthread_mutex_unlock(&door);
    }
    work(&job);
    atomic_store(&current, NULL);
    for (int i = 0; atomic_load(&inside); i++) {
        if (i < PATIENCE) PAUSE();
        else sched_yield(); // whoever is still inside may be waiting for this core
    }
    pthread_mutex_unlock(&busy);
}
