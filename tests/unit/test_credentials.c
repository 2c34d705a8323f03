/* credentials: rqlited's rules of who may do what, and the header that says who asks. */
#include <stdio.h>
#include <stdlib.h>

#include "raftd/http/credentials.h"
#include "tests/support/tap.h"

static char path[] = "/tmp/credentials.XXXXXX";

static void write_file(const char *text)
{
    char next[64];
    (void)snprintf(next, sizeof next, "%s.next", path);
    FILE *f = fopen(next, "w");
    check(f != NULL && fputs(text, f) >= 0);
    check_eq(fclose(f), 0);
    check_eq(rename(next, path), 0);
}

static const char users[] =
    "[{\"username\":\"bob\",\"password\":\"secret1\",\"perms\":[\"status\",\"backup\"]},"
    " {\"username\":\"root\",\"password\":\"secret2\",\"perms\":[\"all\"]},"
    " {\"username\":\"none\",\"password\":\"x\"},"
    " {\"username\":\"twice\",\"password\":\"old\",\"perms\":[\"all\"]},"
    " {\"username\":\"twice\",\"password\":\"new\",\"perms\":[\"load\"]},"
    " {\"username\":\"*\",\"perms\":[\"ready\"]}]";

static bool may(struct rq_credentials *c, const char *user, const char *password, const char *perm)
{
    struct rq_login login;
    if (user == NULL) {
        return rq_credentials_allow(c, NULL, perm);
    }
    (void)snprintf(login.username, sizeof login.username, "%s", user);
    (void)snprintf(login.password, sizeof login.password, "%s", password);
    return rq_credentials_allow(c, &login, perm);
}

static void who_may_is_decided_as_rqlited_does(void)
{
    struct rq_credentials *c;
    struct rq_login login;
    char text[RQ_CREDENTIALS_TEXT_MAX];
    write_file(users);
    check_eq(rq_credentials_new(path, &c, text), RQ_OK);
    check(may(c, "bob", "secret1", "status") && may(c, "bob", "secret1", "backup"));
    check(!may(c, "bob", "secret1", "load"));
    check(!may(c, "bob", "secret", "status") && !may(c, "bob", "secret11", "status") && !may(c, "bob", "", "status"));
    check(may(c, "root", "secret2", "load") && may(c, "root", "secret2", "whatever"));
    check(!may(c, "none", "x", "status") && !may(c, "nobody", "", "status") && !may(c, "", "", "status"));
    check(!may(c, NULL, NULL, "status"));
    check(may(c, NULL, NULL, "ready") && may(c, "bob", "wrong", "ready") && may(c, "nobody", "", "ready"));
    check(!may(c, "*", "", "status"));
    check(!may(c, "twice", "old", "status") && may(c, "twice", "new", "load") && !may(c, "twice", "new", "status"));
    check(rq_credentials_login(c, "bob", &login) && strcmp(login.password, "secret1") == 0);
    check(!rq_credentials_login(c, "nobody", &login));
    rq_credentials_free(c);
}

static void a_changed_file_counts_and_a_broken_one_does_not(void)
{
    struct rq_credentials *c;
    char text[RQ_CREDENTIALS_TEXT_MAX];
    write_file(users);
    check_eq(rq_credentials_new(path, &c, text), RQ_OK);
    write_file("[{\"username\":\"bob\",\"password\":\"other\",\"perms\":[\"status\"]}]");
    check(!may(c, "bob", "secret1", "status") && may(c, "bob", "other", "status") && !may(c, NULL, NULL, "ready"));
    write_file("[{\"username\":");
    check(may(c, "bob", "other", "status"));
    write_file(users);
    check(may(c, "bob", "secret1", "status"));
    rq_credentials_free(c);
}

/* Of "secret", as cheap as they come. */
static const char hashed[] =
    "[{\"username\":\"blow\",\"password\":\"$2b$04$KBCwKxOzLha2MUDgW0PjXe/hE/UCO9qF89dOydoHjSwxcHev5LRn.\","
    "\"perms\":[\"status\"]},"
    " {\"username\":\"sha\",\"password\":\"$6$rounds=1000$k2XAnEHBqQ1Ct2aM$Kusx4StgTAJKgtQ8A1Ud4OEtpvLZ/2wzq/"
    "Tix/qeeqdrvuTHgR6KFuCyOP4TNp5lvuV.tmBxpDTp10bqrWJyv1\",\"perms\":[\"status\"]},"
    " {\"username\":\"yes\",\"password\":\"$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/"
    "HAmA1BpMnBsYHMWB4NZN4$HDtJcZhEDN4lYyPsFs6qifx7sabk8w1.1PAkGR8ixD6\",\"perms\":[\"status\"]},"
    " {\"username\":\"plain\",\"password\":\"$ecret\",\"perms\":[\"status\"]},"
    " {\"username\":\"dollars\",\"password\":\"$y$\",\"perms\":[\"status\"]},"
    " {\"username\":\"*\",\"perms\":[\"ready\"]}]";

static bool slow(struct rq_credentials *c, const char *user, const char *password, const char *perm)
{
    struct rq_login login;
    (void)snprintf(login.username, sizeof login.username, "%s", user);
    (void)snprintf(login.password, sizeof login.password, "%s", password);
    return rq_credentials_is_slow(c, &login, perm);
}

static void hashed_passwords_are_compared_and_then_known(void)
{
    static const char *const users_of[] = { "blow", "sha", "yes" };
    struct rq_credentials *c;
    struct rq_login login;
    char text[RQ_CREDENTIALS_TEXT_MAX];
    write_file(hashed);
    check_eq(rq_credentials_new(path, &c, text), RQ_OK);
    for (size_t i = 0; i < 3; i++) {
        const char *user = users_of[i];
        check(slow(c, user, "secret", "status") && slow(c, user, "wrong", "status"));
        check(!slow(c, user, "secret", "load") && !slow(c, user, "wrong", "ready")); /* decided without it */
        check(!may(c, user, "wrong", "status") && !may(c, user, "", "status") && slow(c, user, "wrong", "status"));
        check(may(c, user, "secret", "status"));
        check(!slow(c, user, "secret", "status") && may(c, user, "secret", "status"));
        check(!may(c, user, "wrong", "status") && !may(c, user, "secret", "load"));
        check(rq_credentials_is_hashed(c, user) && !rq_credentials_login(c, user, &login));
    }
    /* The hash itself is no password, and what is no hash is a plain one. */
    check(!may(c, "blow", "$2b$04$KBCwKxOzLha2MUDgW0PjXe/hE/UCO9qF89dOydoHjSwxcHev5LRn.", "status"));
    check(may(c, "plain", "$ecret", "status") && !slow(c, "plain", "x", "status"));
    check(!rq_credentials_is_hashed(c, "plain") && rq_credentials_login(c, "plain", &login));
    check(may(c, NULL, NULL, "ready"));
    rq_credentials_free(c);
}

static void what_was_known_is_forgotten_with_the_file(void)
{
    struct rq_credentials *c;
    char text[RQ_CREDENTIALS_TEXT_MAX];
    write_file(hashed);
    check_eq(rq_credentials_new(path, &c, text), RQ_OK);
    check(may(c, "blow", "secret", "status"));
    check_eq(rq_credentials_reload(c, text), RQ_OK);
    check(slow(c, "blow", "secret", "status"));
    check(may(c, "blow", "secret", "status"));
    write_file("[]");
    check(!may(c, "blow", "secret", "status"));
    write_file("[");
    check(rq_credentials_reload(c, text) != RQ_OK && strstr(text, path) != NULL);
    check(!may(c, "blow", "secret", "status"));
    rq_credentials_free(c);
}

static void files_that_are_no_credentials_are_refused(void)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[1]",
        "[{}]",
        "[{\"username\":1}]",
        "[{\"username\":\"a\",\"password\":1}]",
        "[{\"username\":\"a\",\"perms\":\"all\"}]",
        "[{\"username\":\"a\",\"perms\":[1]}]",
        "[{\"username\":\"a\\u0000b\"}]",
        "[{\"username\":\"a\"}] x",
    };
    struct rq_credentials *c;
    char text[RQ_CREDENTIALS_TEXT_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(bad[i]);
        check(rq_credentials_new(path, &c, text) != RQ_OK);
        check(strstr(text, path) != NULL);
    }
    check_eq(rq_credentials_new("/nowhere/credentials", &c, text), RQ_IO);
}

static void headers_are_read_strictly(void)
{
    struct rq_login login;
    char header[2000] = "Basic ";
    check(rq_login_parse("Basic Ym9iOnNlY3JldDE=", &login));
    check(strcmp(login.username, "bob") == 0 && strcmp(login.password, "secret1") == 0);
    check(rq_login_parse("basic Ym9iOg==", &login) && strcmp(login.password, "") == 0);
    check(rq_login_parse("Basic Ym9iOmE6Yg==", &login) && strcmp(login.password, "a:b") == 0);
    check(!rq_login_parse(NULL, &login) && !rq_login_parse("", &login) && !rq_login_parse("Bearer x", &login));
    check(!rq_login_parse("Basic Ym9i", &login));     /* no colon */
    check(!rq_login_parse("Basic Ym9iOn!!", &login)); /* no base64 */
    check(!rq_login_parse("Basic Ym9iOgBh", &login)); /* a zero byte */
    memset(header + 6, 'A' + 25, 1900);               /* longer than any name */
    check(!rq_login_parse(header, &login));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(who_may_is_decided_as_rqlited_does),           TAP(a_changed_file_counts_and_a_broken_one_does_not),
        TAP(files_that_are_no_credentials_are_refused),    TAP(headers_are_read_strictly),
        TAP(hashed_passwords_are_compared_and_then_known), TAP(what_was_known_is_forgotten_with_the_file),
    };
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    close(fd);
    int code = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    (void)unlink(path);
    return code;
}
