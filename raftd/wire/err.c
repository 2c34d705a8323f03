#include "raftd/wire/err.h"

const char *rq_err_text(enum rq_err err)
{
    switch (err) {
#define RQ_ERR_TEXT(name, number, text) \
    case RQ_##name:                     \
        return text;
        RQ_ERR_LIST(RQ_ERR_TEXT)
#undef RQ_ERR_TEXT
    }
    return "an error that this version does not know";
}

const char *rq_err_name(enum rq_err err)
{
    switch (err) {
#define RQ_ERR_NAME(name, number, text) \
    case RQ_##name:                     \
        return #name;
        RQ_ERR_LIST(RQ_ERR_NAME)
#undef RQ_ERR_NAME
    }
    return "?";
}
