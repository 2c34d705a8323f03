/* Fixed random: in a program that is linked with this, getrandom() gives the same bytes at each call: a0, a1, a2 and so on.
 * So the salts of a WAL are known, and its bytes can be compared with a file's. */
#ifndef TESTS_SUPPORT_FIXED_RANDOM_H
#define TESTS_SUPPORT_FIXED_RANDOM_H

#include <sys/random.h>
#include <sys/types.h>

#define FIXED_RANDOM_FIRST 0xa0u

#endif
