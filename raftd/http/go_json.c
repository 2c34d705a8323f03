/* Text is looked at by eight bytes, and where one of them needs something, byte by byte through a table; whole runs of what needs
 * nothing are copied at once.
 *
 * Reals: shortest digits, by two ways.  Those with few decimals, as most numbers in databases, are found by scaling: m / 10^k of
 * two integers that a double holds exactly is rounded once, so if it gives v again, m's digits are right, and with at most 15 of
 * them no shorter ones can be.  All others are left to yyjson's writer, whose digits are the shortest, and only their dress is
 * changed. */
#include "raftd/http/go_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

#define INTEGER_TEXT_MAX   20u
#define REAL_DIGITS_MAX    17u
#define REAL_TEXT_MAX      32u
#define SCALED_MAX         1e15 /* 15 digits: any such decimal has a double of its own */
#define SCALE_DECIMALS_MAX 6
#define INDENT_BLANKS      4u

/* --- integers ------------------------------------------------------------------------------------------------------------- */

static uint8_t *write_digits(uint8_t *end, uint64_t v)
{
    do {
        *--end = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return end;
}

enum rq_err rq_go_put_integer(struct rq_bytes *out, int64_t v)
{
    uint8_t text[INTEGER_TEXT_MAX], *end = text + sizeof text;
    uint8_t *start = write_digits(end, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    if (v < 0) {
        *--start = '-';
    }
    return rq_bytes_put(out, start, (size_t)(end - start));
}

/* --- reals ---------------------------------------------------------------------------------------------------------------- */

/* 0.d1d2d3... * 10^point */
struct decimal {
    char digits[REAL_DIGITS_MAX + 1];
    unsigned count;
    int point;
};

static bool scale(double v, struct decimal *d)
{
    double power = 1;
    for (int decimals = 0; decimals <= SCALE_DECIMALS_MAX && v * power < SCALED_MAX; decimals++, power *= 10) {
        const double m = nearbyint(v * power);
        if (m / power == v && m >= 1) {
            uint8_t text[INTEGER_TEXT_MAX], *end = text + sizeof text, *start = write_digits(end, (uint64_t)m);
            d->count = (unsigned)(end - start);
            d->point = (int)d->count - decimals;
            memcpy(d->digits, start, d->count);
            return true;
        }
    }
    return false;
}

/* Takes apart "123.45", "0.001", "1.5e-7", ... */
static void take_apart(const char *s, struct decimal *d)
{
    bool behind_point = false, significant = false;
    int exponent = 0;
    *d = (struct decimal){ .point = 0 };
    for (; *s != '\0' && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            behind_point = true;
            continue;
        }
        significant = significant || *s != '0';
        if (significant && d->count < REAL_DIGITS_MAX) {
            d->digits[d->count++] = *s;
        }
        d->point += significant && !behind_point ? 1 : !significant && behind_point ? -1 : 0;
    }
    if (*s != '\0') {
        const bool negative = s[1] == '-';
        for (s += 1 + (s[1] == '-' || s[1] == '+'); *s >= '0' && *s <= '9'; s++) {
            exponent = exponent * 10 + (*s - '0');
        }
        d->point += negative ? -exponent : exponent;
    }
}

static void shortest(double v, struct decimal *d)
{
    char memory[1024];
    yyjson_alc alc;
    yyjson_val val = { 0 };
    size_t bytes;
    char *text = NULL;
    yyjson_set_real(&val, v);
    if (yyjson_alc_pool_init(&alc, memory, sizeof memory)) {
        text = yyjson_val_write_opts(&val, YYJSON_WRITE_NOFLAG, &alc, &bytes, NULL);
    }
    if (text != NULL) {
        take_apart(text, d);
    } else {
        char all[REAL_TEXT_MAX];
        (void)snprintf(all, sizeof all, "%.16e", v); /* right, if not always shortest */
        take_apart(all, d);
    }
    while (d->count > 1 && d->digits[d->count - 1] == '0') {
        d->count--;
    }
}

static size_t dress(const struct decimal *d, bool exponent, char *out)
{
    char *o = out;
    if (exponent) {
        const int e = d->point - 1;
        *o++ = d->digits[0];
        if (d->count > 1) {
            *o++ = '.';
            memcpy(o, d->digits + 1, d->count - 1);
            o += d->count - 1;
        }
        *o++ = 'e';
        *o++ = e < 0 ? '-' : '+';
        o += snprintf(o, 8, "%d", e < 0 ? -e : e); /* Go cuts a leading zero */
    } else if (d->point <= 0) {
        *o++ = '0';
        *o++ = '.';
        for (int i = d->point; i < 0; i++) {
            *o++ = '0';
        }
        memcpy(o, d->digits, d->count);
        o += d->count;
    } else {
        for (unsigned i = 0; i < d->count || (int)i < d->point; i++) {
            if ((int)i == d->point) {
                *o++ = '.';
            }
            *o++ = i < d->count ? d->digits[i] : '0';
        }
    }
    return (size_t)(o - out);
}

enum rq_err rq_go_put_real(struct rq_bytes *out, double v)
{
    char text[REAL_TEXT_MAX + REAL_DIGITS_MAX];
    struct decimal d;
    size_t n = 0;
    const double size = fabs(v);
    if (isinf(v)) {
        return rq_bytes_put(out, v < 0 ? "\"-Inf\"" : "\"+Inf\"", 6);
    }
    if (isnan(v)) {
        return rq_bytes_put(out, "null", 4); /* which SQLite makes of it, too */
    }
    if (signbit(v)) {
        text[n++] = '-';
    }
    if (size == 0) {
        text[n++] = '0';
    } else {
        if (!scale(size, &d)) {
            shortest(size, &d);
        }
        n += dress(&d, size < 1e-6 || size >= 1e21, text + n);
    }
    return rq_bytes_put(out, text, n);
}

/* --- text ----------------------------------------------------------------------------------------------------------------- */

/* What a byte of text asks for: 0: nothing. */
enum { ESCAPED = 1, BEYOND_ASCII = 2 };
#define E ESCAPED
#define B BEYOND_ASCII
static const uint8_t needs[256] = {
    E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, E, /* 0x00: control */
    0, 0, E, 0, 0, 0, E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, E, 0, E, 0, /* 0x20: " & < > */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, E, 0, 0, 0, /* 0x40: \ */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x60 */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 0x80 */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 0xa0 */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 0xc0 */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 0xe0 */
};
#undef E
#undef B

#define EIGHT(c) (UINT64_C(0x0101010101010101) * (c))

/* Does none of eight bytes need anything?  The high bit of a byte of `some` says that it does; it may say so of its neighbours as well,
 * which costs a second look.  " and & differ in one bit, as do < and >. */
static bool eight_are_plain(const uint8_t *s)
{
    uint64_t w;
    memcpy(&w, s, sizeof w);
    const uint64_t quote = (w | EIGHT(0x04)) ^ EIGHT(0x26), angle = (w | EIGHT(0x02)) ^ EIGHT(0x3e),
                   backslash = w ^ EIGHT(0x5c);
    const uint64_t some = w | (w - EIGHT(0x20)) | ((quote - EIGHT(1)) & ~quote) | ((angle - EIGHT(1)) & ~angle) |
                          ((backslash - EIGHT(1)) & ~backslash);
    return (some & EIGHT(0x80)) == 0;
}

/* Bytes of the character that begins at s, all of them there and right; 0: it is not UTF-8. */
static size_t character(const uint8_t *s, size_t bytes)
{
    const uint8_t c = s[0];
    const size_t n = c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || bytes < n) {
        return 0;
    }
    /* The second byte rules out what is too long for its value, surrogates, and what is past U+10FFFF. */
    const uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

static enum rq_err put_escaped(struct rq_bytes *out, unsigned c)
{
    static const char digits[] = "0123456789abcdef";
    static const char letters[] = "\b\f\n\r\t\"\\", names[] = "bfnrt\"\\";
    const char *letter = c != 0 && c < 0x80 ? strchr(letters, (int)c) : NULL;
    if (letter != NULL) {
        const char two[2] = { '\\', names[letter - letters] };
        return rq_bytes_put(out, two, 2);
    }
    const char six[6] = { '\\', 'u', digits[c >> 12 & 15], digits[c >> 8 & 15], digits[c >> 4 & 15], digits[c & 15] };
    return rq_bytes_put(out, six, 6);
}

enum rq_err rq_go_put_text(struct rq_bytes *out, const uint8_t *text, size_t bytes)
{
    const uint8_t *s = text, *end = text + bytes, *run = text, *looked_at = text;
    enum rq_err err = rq_bytes_reserve(out, bytes + 2);
    if (err != RQ_OK) {
        return err;
    }
    out->data[out->size++] = '"';
    while (s < end && err == RQ_OK) {
        if (s >= looked_at && end - s >= 8) {
            looked_at = s + 8;
            if (eight_are_plain(s)) {
                s += 8;
                continue;
            }
        }
        if (needs[*s] == 0) {
            s++;
            continue;
        }
        size_t n = needs[*s] == ESCAPED ? 1 : character(s, (size_t)(end - s));
        unsigned escape = n == 1 ? *s : 0xfffd;
        if (n == 3 && s[0] == 0xe2 && s[1] == 0x80 && (s[2] & 0xfe) == 0xa8) {
            escape = 0x2000u | (s[2] & 0x3fu); /* U+2028 and U+2029 end lines in JavaScript */
        } else if (n > 1) {
            s += n;
            continue;
        }
        err = rq_bytes_put(out, run, (size_t)(s - run));
        err = err == RQ_OK ? put_escaped(out, escape) : err;
        s += n > 0 ? n : 1;
        run = s;
    }
    err = err == RQ_OK ? rq_bytes_put(out, run, (size_t)(s - run)) : err;
    return err == RQ_OK ? rq_bytes_put(out, "\"", 1) : err;
}

/* --- blobs ---------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_go_put_base64(struct rq_bytes *out, const uint8_t *data, size_t bytes)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum rq_err err = rq_bytes_reserve(out, (bytes + 2) / 3 * 4 + 2);
    if (err != RQ_OK) {
        return err;
    }
    uint8_t *o = out->data + out->size;
    *o++ = '"';
    for (; bytes >= 3; data += 3, bytes -= 3, o += 4) {
        o[0] = (uint8_t)letters[data[0] >> 2];
        o[1] = (uint8_t)letters[(data[0] & 3) << 4 | data[1] >> 4];
        o[2] = (uint8_t)letters[(data[1] & 15) << 2 | data[2] >> 6];
        o[3] = (uint8_t)letters[data[2] & 63];
    }
    if (bytes > 0) {
        const unsigned second = bytes == 2 ? data[1] : 0;
        o[0] = (uint8_t)letters[data[0] >> 2];
        o[1] = (uint8_t)letters[(data[0] & 3u) << 4 | second >> 4];
        o[2] = (uint8_t)(bytes == 2 ? letters[(second & 15) << 2] : '=');
        o[3] = '=';
        o += 4;
    }
    *o++ = '"';
    out->size = (size_t)(o - out->data);
    return RQ_OK;
}

enum rq_err rq_go_put_array(struct rq_bytes *out, const uint8_t *data, size_t bytes)
{
    enum rq_err err = rq_bytes_put(out, "[", 1);
    for (size_t i = 0; i < bytes && err == RQ_OK; i++) {
        err = i > 0 ? rq_bytes_put(out, ",", 1) : RQ_OK;
        err = err == RQ_OK ? rq_go_put_integer(out, data[i]) : err;
    }
    return err == RQ_OK ? rq_bytes_put(out, "]", 1) : err;
}

/* --- time ----------------------------------------------------------------------------------------------------------------- */

struct moment {
    int64_t year;
    unsigned month, day, hour, minute, second, nanosecond;
    bool has_offset;
    bool west;
    unsigned offset_hours, offset_minutes;
};

static void put_moment(const struct moment *m, char text[40])
{
    int n = snprintf(text, 40, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)m->year, m->month, m->day, m->hour, m->minute,
                     m->second);
    if (m->nanosecond > 0) {
        n += snprintf(text + n, (size_t)(40 - n), ".%09u", m->nanosecond);
        while (text[n - 1] == '0') {
            n--;
        }
    }
    if (m->has_offset && (m->offset_hours > 0 || m->offset_minutes > 0)) {
        (void)snprintf(text + n, (size_t)(40 - n), "%c%02u:%02u", m->west ? '-' : '+', m->offset_hours,
                       m->offset_minutes);
    } else {
        (void)snprintf(text + n, (size_t)(40 - n), "Z");
    }
}

/* Of a number of days since 1970-01-01.  Eras of 400 years, which begin in March so that the leap day is the last one. */
static void date_of_days(int64_t days, struct moment *m)
{
    days += 719468;
    const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const unsigned day = (unsigned)(days - era * 146097);
    const unsigned year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    const unsigned day_of_year = day - (365 * year + year / 4 - year / 100);
    const unsigned month = (5 * day_of_year + 2) / 153;
    m->day = day_of_year - (153 * month + 2) / 5 + 1;
    m->month = month < 10 ? month + 3 : month - 9;
    m->year = (int64_t)year + era * 400 + (m->month <= 2);
}

bool rq_go_time_of_integer(int64_t v, char text[40])
{
    const int64_t unit = v > INT64_C(1000000000000) || v < -INT64_C(1000000000000) ? 1000 : 1;
    int64_t seconds = v / unit, rest = v % unit;
    struct moment m = { 0 };
    if (rest < 0) {
        rest += unit;
        seconds--;
    }
    const int64_t days = seconds >= 0 ? seconds / 86400 : -((86399 - seconds) / 86400);
    const unsigned second = (unsigned)(seconds - days * 86400);
    date_of_days(days, &m);
    if (m.year < 0 || m.year > 9999) {
        return false;
    }
    m.hour = second / 3600;
    m.minute = second / 60 % 60;
    m.second = second % 60;
    m.nanosecond = (unsigned)rest * 1000000u;
    put_moment(&m, text);
    return true;
}

struct cursor {
    const char *s, *end;
};

/* A number of as many digits as said. */
static bool take_number(struct cursor *c, unsigned digits_min, unsigned digits_max, unsigned *ret)
{
    unsigned v = 0, n = 0;
    while (n < digits_max && c->s < c->end && *c->s >= '0' && *c->s <= '9') {
        v = v * 10 + (unsigned)(*c->s++ - '0');
        n++;
    }
    *ret = v;
    return n >= digits_min;
}

static bool take_letter(struct cursor *c, char letter)
{
    if (c->s < c->end && *c->s == letter) {
        c->s++;
        return true;
    }
    return false;
}

static unsigned days_in(unsigned month, unsigned year)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

static bool take_date(struct cursor *c, struct moment *m)
{
    unsigned year;
    if (!take_number(c, 4, 4, &year) || !take_letter(c, '-') || !take_number(c, 2, 2, &m->month) ||
        !take_letter(c, '-') || !take_number(c, 2, 2, &m->day)) {
        return false;
    }
    m->year = year;
    return m->month >= 1 && m->month <= 12 && m->day >= 1 && m->day <= days_in(m->month, year);
}

/* Digits behind the point or comma, of which nine count. */
static bool take_fraction(struct cursor *c, struct moment *m)
{
    unsigned n = 0;
    if (!take_letter(c, '.') && !take_letter(c, ',')) {
        return true;
    }
    for (; c->s < c->end && *c->s >= '0' && *c->s <= '9'; c->s++, n++) {
        m->nanosecond = n < 9 ? m->nanosecond * 10 + (unsigned)(*c->s - '0') : m->nanosecond;
    }
    const bool any = n > 0;
    for (; n < 9; n++) {
        m->nanosecond *= 10;
    }
    return any;
}

static bool take_offset(struct cursor *c, struct moment *m)
{
    m->west = c->s < c->end && *c->s == '-';
    m->has_offset = take_letter(c, '-') || take_letter(c, '+');
    return !m->has_offset ||
           (take_number(c, 2, 2, &m->offset_hours) && take_letter(c, ':') && take_number(c, 2, 2, &m->offset_minutes) &&
            m->offset_hours < 24 && m->offset_minutes < 60);
}

/* Seconds may be missing, but only where nothing follows. */
static bool take_time(struct cursor *c, struct moment *m)
{
    if (!take_number(c, 1, 2, &m->hour) || !take_letter(c, ':') || !take_number(c, 2, 2, &m->minute) || m->hour > 23 ||
        m->minute > 59) {
        return false;
    }
    if (c->s == c->end) {
        return true;
    }
    return take_letter(c, ':') && take_number(c, 2, 2, &m->second) && m->second <= 59 && take_fraction(c, m) &&
           take_offset(c, m);
}

bool rq_go_time_of_text(const char *s, size_t bytes, char text[40])
{
    struct cursor c = { s, s + bytes };
    struct moment m = { 0 };
    if (bytes > 0 && c.end[-1] == 'Z') {
        c.end--;
    }
    if (!take_date(&c, &m)) {
        return false;
    }
    if (c.s < c.end && ((!take_letter(&c, ' ') && !take_letter(&c, 'T')) || !take_time(&c, &m))) {
        return false;
    }
    if (c.s != c.end) {
        return false;
    }
    put_moment(&m, text);
    return true;
}

/* --- pretty --------------------------------------------------------------------------------------------------------------- */

static enum rq_err new_line(struct rq_bytes *out, size_t depth)
{
    enum rq_err err = rq_bytes_reserve(out, 1 + depth * INDENT_BLANKS);
    if (err == RQ_OK) {
        out->data[out->size++] = '\n';
        memset(out->data + out->size, ' ', depth * INDENT_BLANKS);
        out->size += depth * INDENT_BLANKS;
    }
    return err;
}

/* Behind the end of the string that s is in, or behind all that there is of it. */
static const uint8_t *skip_string(struct rq_go_indent *state, const uint8_t *s, const uint8_t *end)
{
    for (; s < end && state->in_string; s++) {
        state->in_string = state->escaped || *s != '"';
        state->escaped = !state->escaped && *s == '\\';
    }
    return s;
}

/* Before a byte that is not of a string. */
static enum rq_err break_line(struct rq_go_indent *state, struct rq_bytes *out, bool closes)
{
    if (state->opened && closes) {
        state->opened = false; /* of an empty one both ends stay together */
        return RQ_OK;
    }
    if (!state->opened && !closes) {
        return RQ_OK;
    }
    state->depth += state->opened ? 1 : state->depth > 0 ? (size_t)-1 : 0;
    state->opened = false;
    return new_line(out, state->depth);
}

enum rq_err rq_go_indent(struct rq_go_indent *state, struct rq_bytes *out, const uint8_t *json, size_t bytes)
{
    const uint8_t *s = json, *end = json + bytes;
    enum rq_err err = RQ_OK;
    while (s < end && err == RQ_OK) {
        const uint8_t *start = s;
        const bool within = state->in_string;
        if (!within) {
            err = break_line(state, out, *s == ']' || *s == '}');
            state->in_string = *s++ == '"';
        }
        s = skip_string(state, s, end);
        err = err == RQ_OK ? rq_bytes_put(out, start, (size_t)(s - start)) : err;
        if (within || err != RQ_OK) {
            continue;
        }
        if (*start == ',') {
            err = new_line(out, state->depth);
        } else if (*start == ':') {
            err = rq_bytes_put(out, " ", 1);
        }
        state->opened = *start == '[' || *start == '{';
    }
    return err;
}
