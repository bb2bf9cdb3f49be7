/* Two models in one program. Arguments: the weight file of each. */
#include <string.h>

#include "check.h"
#include "first.h"
#include "second.h"

int main(int count, char **arguments) {
    CHECK(count == 3);
    first *one;
    second *two;
    first_session *session_of_one;
    second_session *session_of_two;
    float logits[2][FIRST_VOCAB];
    int32_t id = 3;
    CHECK(first_open(arguments[1], NULL, &one, NULL) == FIRST_OK);
    CHECK(second_open(arguments[2], NULL, &two, NULL) == SECOND_OK);
    first_close(one);
    CHECK(first_open(arguments[2], NULL, &one, NULL) == FIRST_BAD_WEIGHTS);
    CHECK(first_open(arguments[1], NULL, &one, NULL) == FIRST_OK);
    CHECK(first_session_new(one, 4, &session_of_one, NULL) == FIRST_OK);
    CHECK(second_session_new(two, 4, &session_of_two, NULL) == SECOND_OK);
    CHECK(first_step(session_of_one, &id, 1, logits[0], NULL) == FIRST_OK);
    CHECK(second_step(session_of_two, &id, 1, logits[1], NULL) == SECOND_OK);
    CHECK(!memcmp(logits[0], logits[1], sizeof logits[0]));
    CHECK(strstr(first_version(), "first") && strstr(second_version(), "second"));
    first_session_free(session_of_one);
    second_session_free(session_of_two);
    first_close(one);
    second_close(two);
    return 0;
}
