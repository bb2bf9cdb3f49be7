/* What a backend's entry object has, in C: the description and the public functions of a model called NAME. */
#include "moec.h"
#include "tiny_model.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)

static const moec_description description = TINY_DESCRIPTION(TEXT(NAME), FINGERPRINT);

int JOIN(NAME, open)(const char *weights, const moec_options *options, moec_open_model **model, moec_error **error);
void JOIN(NAME, close)(moec_open_model *model);
int JOIN(NAME, session_new)(moec_open_model *model, size_t max_tokens, moec_session **session, moec_error **error);
void JOIN(NAME, session_free)(moec_session *session);
int JOIN(NAME, step)(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error);
const char *JOIN(NAME, version)(void);

int JOIN(NAME, open)(const char *weights, const moec_options *options, moec_open_model **model, moec_error **error) {
    return moec_open(&description, weights, options, model, error);
}
void JOIN(NAME, close)(moec_open_model *model) { moec_close(model); }
int JOIN(NAME, session_new)(moec_open_model *model, size_t max_tokens, moec_session **session, moec_error **error) {
    return moec_session_new(model, max_tokens, session, error);
}
void JOIN(NAME, session_free)(moec_session *session) { moec_session_free(session); }
int JOIN(NAME, step)(moec_session *session, const int32_t *ids, size_t n, float *logits, moec_error **error) {
    return moec_step(session, ids, n, logits, error);
}
const char *JOIN(NAME, version)(void) { return moec_version(&description); }
