/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/field.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* digits x 10^exponent */
typedef struct decimal {
    uint64_t digits;
    int exponent;
    bool negative, inexact;
} decimal;

/* Appends a digit; those beyond 19 only count for the exponent. */
static void add_digit(decimal *d, char digit, bool fraction)
{
    bool fits = d->digits <= (UINT64_MAX - 9) / 10;
    if (fits)
        d->digits = d->digits * 10 + (uint64_t)(digit - '0');
    else
        d->inexact |= digit != '0';
    d->exponent += fraction ? (fits ? -1 : 0) : (fits ? 0 : 1);
}

static const char *read_exponent(const char *p, decimal *d)
{
    bool negative = *p == '-';
    int exponent = 0;
    if (*p == '-' || *p == '+')
        p++;
    if (!isdigit((unsigned char)*p))
        return NULL;
    for (; isdigit((unsigned char)*p); p++)
        exponent = exponent < 10000 ? exponent * 10 + (*p - '0') : exponent;
    d->exponent += negative ? -exponent : exponent;
    return p;
}

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static const char *read_decimal(const char *text, decimal *d)
{
    const char *p = skip_blanks(text);
    *d = (decimal){.negative = *p == '-'};
    if (*p == '\0')
        return "is empty, expected a number";
    if (*p == '-' || *p == '+')
        p++;
    bool any = false;
    for (; isdigit((unsigned char)*p); p++, any = true)
        add_digit(d, *p, false);
    if (*p == '.')
        for (p++; isdigit((unsigned char)*p); p++, any = true)
            add_digit(d, *p, true);
    if (any && (*p == 'e' || *p == 'E'))
        p = read_exponent(p + 1, d);
    if (!any || p == NULL || *skip_blanks(p) != '\0')
        return "is not a number";
    return NULL;
}

/* digits x 10^exponent as an int64_t, rounded half away from zero; exact tells if none was needed.
 */
static const char *to_int64(const decimal *d, int64_t *out, bool *exact)
{
    uint64_t value = d->digits;
    *exact = !d->inexact;
    for (int e = d->exponent; e > 0 && value > 0; e--) {
        if (value > INT64_MAX / 10)
            return "is too large";
        value *= 10;
    }
    uint64_t last = 0;
    for (int e = d->exponent; e < 0 && (value > 0 || last > 0); e++) {
        *exact = *exact && last == 0;
        last = value % 10;
        value /= 10;
    }
    *exact = *exact && last == 0;
    value += last >= 5;
    if (value > INT64_MAX)
        return "is too large";
    *out = d->negative ? -(int64_t)value : (int64_t)value;
    return NULL;
}

const char *kv__read_whole(const char *text, int64_t *out)
{
    decimal d;
    bool exact;
    int64_t value;
    const char *wrong = read_decimal(text, &d);
    if (wrong == NULL && d.negative && d.digits > 0)
        return "is negative";
    if (wrong == NULL)
        wrong = to_int64(&d, &value, &exact);
    if (wrong == NULL && !exact)
        wrong = "is not a whole number";
    if (wrong == NULL)
        *out = value;
    return wrong;
}

const char *kv__read_tokens(const char *text, int32_t *out)
{
    int64_t value;
    const char *wrong = kv__read_whole(text, &value);
    if (wrong != NULL)
        return wrong;
    if (value > INT32_MAX)
        return "is above 2147483647 tokens";
    *out = (int32_t)value;
    return NULL;
}

/* --- Dates ----------------------------------------------------------------------------------- */

/* Reads exactly `digits` digits. */
static bool read_digits(const char **p, int digits, int *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, (*p)++) {
        if (!isdigit((unsigned char)**p))
            return false;
        *out = *out * 10 + (**p - '0');
    }
    return true;
}

static bool read_mark(const char **p, const char *any_of)
{
    if (**p == '\0' || strchr(any_of, **p) == NULL)
        return false;
    (*p)++;
    return true;
}

/* Days from 1970-01-01 to a day of the Gregorian calendar: years begin in March, so that the leap
 * day is the last of its year. */
static int64_t days_of(int year, int month, int day)
{
    int y = year - (month <= 2), m = (month + 9) % 12;
    return 365LL * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719468;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* "Z", "+01:00", "-0530" or nothing, in seconds. */
static bool read_offset(const char **p, int *seconds)
{
    int hours, minutes;
    *seconds = 0;
    if (**p == '\0' || read_mark(p, "Z"))
        return true;
    int sign = **p == '-' ? -1 : 1;
    if (!read_mark(p, "+-") || !read_digits(p, 2, &hours))
        return false;
    read_mark(p, ":");
    if (!read_digits(p, 2, &minutes))
        return false;
    *seconds = sign * (hours * 3600 + minutes * 60);
    return true;
}

/* ".6805900" as nanoseconds; what goes beyond nine digits is rounded. */
static bool read_fraction(const char **p, int64_t *ns)
{
    decimal d = {0};
    bool exact;
    *ns = 0;
    if (!read_mark(p, "."))
        return true;
    const char *first = *p;
    for (; isdigit((unsigned char)**p); (*p)++)
        add_digit(&d, **p, true);
    d.exponent += KV_UNIT_S;
    return *p > first && to_int64(&d, ns, &exact) == NULL;
}

static const char *read_date(const char *p, int64_t *ns)
{
    static const char *const wrong = "is not a date and time like 2023-11-16 18:15:46.68";
    int year, month, day, hour, minute, second, offset;
    int64_t fraction;
    if (!read_digits(&p, 4, &year) || !read_mark(&p, "-/") || !read_digits(&p, 2, &month) ||
        !read_mark(&p, "-/") || !read_digits(&p, 2, &day) || !read_mark(&p, " T"))
        return wrong;
    if (!read_digits(&p, 2, &hour) || !read_mark(&p, ":") || !read_digits(&p, 2, &minute) ||
        !read_mark(&p, ":") || !read_digits(&p, 2, &second))
        return wrong;
    if (!read_fraction(&p, &fraction) || !read_offset(&p, &offset) || *p != '\0')
        return wrong;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 60)
        return "is a date or time that does not exist";
    if (year < 1700 || year > 2200)
        return "is out of range, expected the years 1700 to 2200";
    int64_t seconds =
        days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    *ns = seconds * 1000000000 + fraction;
    return NULL;
}

const char *kv__read_time(const char *text, int unit, int64_t *ns)
{
    decimal d;
    bool exact;
    text = skip_blanks(text);
    if (strchr(text, ':') != NULL)
        return read_date(text, ns);
    const char *wrong = read_decimal(text, &d);
    d.exponent += unit;
    return wrong != NULL ? wrong : to_int64(&d, ns, &exact);
}

const char *kv__time_of_real(double value, int unit, int64_t *ns)
{
    double scaled = value * pow(10, unit);
    if (!isfinite(scaled))
        return "is not a finite number";
    if (fabs(scaled) >= 9.2e18)
        return "is too large";
    *ns = llround(scaled);
    return NULL;
}

void kv__write_time(FILE *out, int64_t ns, int unit)
{
    int64_t scale = 1;
    for (int i = 0; i < unit; i++)
        scale *= 10;
    uint64_t size = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
    uint64_t fraction = size % (uint64_t)scale;
    fprintf(out, "%s%" PRIu64, ns < 0 ? "-" : "", size / (uint64_t)scale);
    int digits = unit;
    for (; fraction > 0 && fraction % 10 == 0; digits--)
        fraction /= 10;
    if (fraction > 0)
        fprintf(out, ".%0*" PRIu64, digits, fraction);
}

uint64_t kv__name_of(const char *text)
{
    int64_t number;
    if (isdigit((unsigned char)text[0]) && kv__read_whole(text, &number) == NULL)
        return (uint64_t)number;
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        hash = (hash ^ *p) * UINT64_C(1099511628211);
    hash |= UINT64_C(1) << 63;
    return hash == UINT64_MAX ? hash - 1 : hash; /* KV_NO_SESSION is no one's name */
}

uint64_t kv__name_behind(uint64_t before, uint64_t name)
{
    uint64_t x = before * UINT64_C(0xd6e8feb86659fd93) + name + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9); /* as splitmix64 */
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}
