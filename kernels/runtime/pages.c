/* The memory of caches: pages of MOEC_PAGE positions that sessions take as they grow, within the model's budget. Sessions
 * may share pages: a session that is about to write into one that others have too gets a copy of its own first. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct moec_page {
    _Atomic int64_t owners;
    char *at;
    moec_block block; /* where it is in this machine's memory */
    bool on_device;
};

static int64_t page_bytes(const moec_open_model *model) {
    return model->description->cache_bytes_per_position * MOEC_PAGE;
}

int64_t moec_most_pages(const moec_description *description, int32_t cache_mib) {
    if (!cache_mib || !description->cache_bytes_per_position) return INT64_MAX;
    return ((int64_t)cache_mib << 20) / MOEC_PAGE / description->cache_bytes_per_position;
}

static void page_release(moec_open_model *model, moec_page *page) {
    if (!page || atomic_fetch_sub(&page->owners, 1) > 1) return;
    if (page->on_device) model->calls->give(model->device, page->at);
    moec_block_free(&page->block);
    free(page);
    atomic_fetch_sub(&model->pages, 1);
}

/* Where the session's pages are. */
static moec_page *page_new(const moec_session *session) {
    moec_open_model *model = session->model;
    size_t bytes = (size_t)page_bytes(model);
    moec_page *page = calloc(1, sizeof *page);
    if (!page) return NULL;
    atomic_init(&page->owners, 1);
    page->on_device = !session->passes;
    if (page->on_device) page->at = model->calls->take(model->device, bytes);
    else if (moec_block_new(&page->block, 1, bytes)) page->at = page->block.at;
    if (page->at) return page;
    free(page);
    return NULL;
}

/* Whether a session must get a page of its own before it may write there. */
static bool is_missing(const moec_page *page) { return !page || atomic_load(&page->owners) > 1; }

static int64_t pages_for(int64_t positions) { return (positions + MOEC_PAGE - 1) / MOEC_PAGE; }

int64_t moec_pages_missing(const moec_session *session, int64_t from, int64_t to) {
    int64_t count = 0;
    for (int64_t at = from / MOEC_PAGE; session->pages && at < pages_for(to); at++) count += is_missing(session->pages[at]);
    return count;
}

int moec_pages_reserve(moec_open_model *model, int64_t count, moec_error **error) {
    int64_t used = atomic_load(&model->pages);
    do {
        if (count <= model->most_pages - used) continue;
        return moec_fail(error, MOEC_CACHE_FULL,
            "the caches are full: %" PRId64 " of %" PRId64 " pages of %d positions are in use, and %" PRId64 " more are needed",
            used, model->most_pages, MOEC_PAGE, count);
    } while (!atomic_compare_exchange_weak(&model->pages, &used, used + count));
    return MOEC_OK;
}

void moec_pages_give_back(moec_open_model *model, int64_t count) { atomic_fetch_sub(&model->pages, count); }

int moec_pages_take(moec_session *session, int64_t from, int64_t to, int64_t *reserved, moec_error **error) {
    moec_open_model *model = session->model;
    size_t bytes = (size_t)page_bytes(model);
    for (int64_t at = from / MOEC_PAGE; session->pages && at < pages_for(to); at++) {
        moec_page *before = session->pages[at];
        if (!is_missing(before)) continue;
        moec_page *page = page_new(session);
        if (!page)
            return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory%s for the caches of %" PRId64 " more positions",
                session->passes ? "" : " on the GPU", to - from);
        --*reserved;
        int code = MOEC_OK;
        if (before && page->on_device) code = model->calls->copy(model->device, page->at, before->at, bytes, error);
        else if (before) memcpy(page->at, before->at, bytes);
        if (code) {
            page_release(model, page);
            return code;
        }
        session->pages[at] = page;
        session->page_at[at] = page->at;
        page_release(model, before);
    }
    return MOEC_OK;
}

bool moec_pages_new(moec_session *session) {
    int64_t bytes = session->model->description->cache_bytes_per_position, most = pages_for(session->max_tokens), all;
    if (!bytes) return true;
    if (__builtin_mul_overflow(bytes, most * MOEC_PAGE, &all)) return false;
    session->pages = calloc((size_t)most, sizeof *session->pages);
    session->page_at = calloc((size_t)most, sizeof *session->page_at);
    return session->pages && session->page_at;
}

void moec_pages_share(moec_session *session, const moec_session *from, int64_t positions) {
    for (int64_t at = 0; session->pages && at < pages_for(positions); at++) {
        session->pages[at] = from->pages[at];
        session->page_at[at] = from->page_at[at];
        atomic_fetch_add(&session->pages[at]->owners, 1);
    }
}

void moec_pages_release(moec_session *session) {
    for (int64_t at = 0; session->pages && at < pages_for(session->max_tokens); at++) {
        page_release(session->model, session->pages[at]);
        session->pages[at] = NULL;
        session->page_at[at] = NULL;
    }
}

size_t moec_cache_bytes(const moec_open_model *model) {
    return model ? (size_t)(atomic_load(&model->pages) * page_bytes(model)) : 0;
}
