/* The part of the run time that generated code calls, for tests. */
#include <pthread.h>
#include <stdlib.h>

struct moec_team {
    pthread_barrier_t barrier;
};

struct moec_team *test_team_new(unsigned threads) {
    struct moec_team *team = malloc(sizeof *team);
    pthread_barrier_init(&team->barrier, NULL, threads);
    return team;
}

void test_team_free(struct moec_team *team) {
    pthread_barrier_destroy(&team->barrier);
    free(team);
}

void moec_barrier(struct moec_team *team) {
    pthread_barrier_wait(&team->barrier);
}
