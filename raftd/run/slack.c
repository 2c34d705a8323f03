#include "raftd/run/slack.h"

#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "raftd/run/clock.h"

bool rq_slack_is_due(struct rq_slack *s, uint64_t now_ms, uint64_t used_ms)
{
    const uint64_t passed_ms = now_ms - s->looked_ms, recent_ms = used_ms - s->used_ms;
    const bool rests = recent_ms * 1000u <= passed_ms * RQ_SLACK_REST_PM;
    s->looked_ms = now_ms;
    s->used_ms = used_ms;
    if (!rests || used_ms - s->returned_ms < RQ_SLACK_WORK_MS) {
        return false;
    }
    s->returned_ms = used_ms;
    return true;
}

/* Relocations in the code, where a platform has them, are nowhere but in memory. */
static bool has_relocated_code(const struct dl_phdr_info *object)
{
    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &object->dlpi_phdr[i];
        const ElfW(Dyn) *d = (const ElfW(Dyn) *)(object->dlpi_addr + h->p_vaddr); /* mapped with the object */
        for (; h->p_type == PT_DYNAMIC && d->d_tag != DT_NULL; d++) {
            if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && (d->d_un.d_val & DF_TEXTREL) != 0)) {
                return true;
            }
        }
    }
    return false;
}

/* What can be written to is left alone: it is not what the file holds. */
static int return_code(struct dl_phdr_info *object, size_t bytes, void *ctx)
{
    const ElfW(Addr) page = *(const ElfW(Addr) *)ctx;
    const bool is_kernels = getauxval(AT_SYSINFO_EHDR) == object->dlpi_addr;
    (void)bytes;
    if (is_kernels || has_relocated_code(object)) {
        return 0;
    }
    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &object->dlpi_phdr[i];
        const ElfW(Addr) begin = (object->dlpi_addr + h->p_vaddr + page - 1) / page * page;
        const ElfW(Addr) end = (object->dlpi_addr + h->p_vaddr + h->p_filesz) / page * page;
        if (h->p_type == PT_LOAD && (h->p_flags & PF_W) == 0 && begin < end) {
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* locked in memory: it stays */
        }
    }
    return 0;
}

void rq_slack_look(struct rq_slack *s)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    if (rq_slack_is_due(s, rq_clock_ms(), (uint64_t)used.tv_sec * 1000u + (uint64_t)used.tv_nsec / 1000000u)) {
        ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE);
        (void)malloc_trim(0);
        (void)dl_iterate_phdr(return_code, &page);
    }
}
