/* Opening: who may, what is refused, and what a migration leaves behind. */
#include "config.h"

#include "module/store/state.h"
#include "tests/unit/store_fixture.h"

#include <grp.h>
#include <sys/wait.h>

static void db_path(const struct fixture *f, const char *name, char *path,
                    size_t cap)
{
    snprintf(path, cap, "%s/%s", f->dir, name);
}

/* Straight into the file, as another program would. */
static void run_sql(const struct fixture *f, const char *name, const char *sql)
{
    char path[512];
    sqlite3 *db;
    db_path(f, name, path, sizeof(path));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(chmod(path, 0600), 0);
}

static int64_t ask_sql(const struct fixture *f, const char *name,
                       const char *sql)
{
    char path[512];
    sqlite3 *db;
    sqlite3_stmt *st;
    db_path(f, name, path, sizeof(path));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return value;
}

static int empty_set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    make_dir(f->dir, sizeof(f->dir));
    *state = f;
    return 0;
}

static enum code try_open(struct fixture *f, struct error *e)
{
    struct store_options o = {.dir = f->dir};
    return store_open(&f->s, &o, e);
}

static void files_are_private(void **state)
{
    struct fixture *f = *state;
    mode_t old = umask(0);
    close_store(f);
    remove_dir(f->dir);
    open_store(f, 1 << 20);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_default, &f->org, e));
    umask(old);
    struct stat st;
    assert_int_equal(stat(f->dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    DIR *d = opendir(f->dir);
    int files = 0;
    for (struct dirent *n; (n = readdir(d));) {
        if (n->d_name[0] == '.')
            continue;
        files++;
        assert_int_equal(fstatat(dirfd(d), n->d_name, &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
    }
    closedir(d);
    assert_true(files >= 5); /* store.db, its -wal and -shm, lock, reserve */
}

static void second_opener_is_busy(void **state)
{
    struct fixture *f = *state, other = {.s = NULL};
    strcpy(other.dir, f->dir);
    FAILS(ERR_BUSY, try_open(&other, e));
    close_store(f);
    open_store(f, 0);
    struct store_org o;
    SUCCEEDS(store_org_get(f->s, "default", &o, e));
    store_org_clear(&o);
}

static void newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    run_sql(f, "store.db", "PRAGMA user_version = 99");
    FAILS(ERR_SCHEMA, try_open(f, e));
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"), 99);
    char back[64];
    snprintf(back, sizeof(back), "PRAGMA user_version = %d", STORE_SCHEMA);
    run_sql(f, "store.db", back);
    open_store(f, 0);
}

static void other_programs_file_is_left_alone(void **state)
{
    struct fixture *f = *state;
    run_sql(f, "store.db", "CREATE TABLE theirs(x)");
    FAILS(ERR_SCHEMA, try_open(f, e));
    assert_int_equal(
        ask_sql(f, "store.db", "SELECT count(*) FROM sqlite_schema"), 1);
    char path[512];
    db_path(f, "store.db", path, sizeof(path));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        fprintf(file, "this is no database\n");
    fclose(file);
    FAILS(ERR_IO, try_open(f, e));
}

static void loose_or_odd_files_are_refused(void **state)
{
    struct fixture *f = *state;
    char path[512];
    db_path(f, "store.db", path, sizeof(path));
    close_store(f);
    assert_int_equal(chmod(path, 0644), 0);
    FAILS(ERR_DENIED, try_open(f, e));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/null", path), 0);
    struct error why = {.code = OK};
    assert_int_not_equal(try_open(f, &why), OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(chmod(f->dir, 0755), 0);
    FAILS(ERR_DENIED, try_open(f, e));
    assert_int_equal(chmod(f->dir, 0700), 0);
}

/* As somebody whom the mode bits bind: root passes them. */
static int open_as(struct fixture *f, uid_t uid)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error e = {.code = OK};
        if (geteuid() == 0 &&
            (setgroups(0, NULL) != 0 || setgid(uid) != 0 || setuid(uid) != 0))
            _exit(100);
        enum code code = try_open(f, &e);
        _exit((int)code);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void read_only_directory_is_named(void **state)
{
    struct fixture *f = *state;
    uid_t uid = geteuid() == 0 ? 65534 : geteuid();
    assert_int_equal(chown(f->dir, uid, (gid_t)-1), 0);
    assert_int_equal(chmod(f->dir, 0500), 0);
    assert_int_equal(open_as(f, uid), ERR_READ_ONLY);
    assert_int_equal(chmod(f->dir, 0700), 0);
    assert_int_equal(open_as(f, uid), OK);
    char path[512];
    db_path(f, "store.db", path, sizeof(path));
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(open_as(f, uid), ERR_READ_ONLY);
}

/* ---- migration ---- */

/* The name of the only copy that a migration saved. */
static bool find_copy(const struct fixture *f, char *name, size_t cap)
{
    DIR *d = opendir(f->dir);
    bool found = false;
    assert_non_null(d);
    for (struct dirent *n; (n = readdir(d));)
        if (strncmp(n->d_name, "store.db.v", 10) == 0) {
            assert_false(found);
            found = true;
            snprintf(name, cap, "%s", n->d_name);
        }
    closedir(d);
    return found;
}

#define VERSION_0 "PRAGMA application_id = 0x68736d74;"

static void migration_saves_the_old_file(void **state)
{
    struct fixture *f = *state;
    run_sql(f, "store.db",
            VERSION_0 "CREATE TABLE legacy(x);"
                      "INSERT INTO legacy VALUES(42);");
    open_store(f, 0);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_default, &f->org, e));
    close_store(f);
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"),
                     STORE_SCHEMA);
    assert_int_equal(ask_sql(f, "store.db", "SELECT x FROM legacy"), 42);
    char copy[256], path[512];
    assert_true(find_copy(f, copy, sizeof(copy)));
    assert_non_null(strstr(copy, ".v0-"));
    db_path(f, copy, path, sizeof(path));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(ask_sql(f, copy, "PRAGMA user_version"), 0);
    assert_int_equal(ask_sql(f, copy, "SELECT x FROM legacy"), 42);
    open_store(f, 0); /* and it is migrated once only */
    assert_true(find_copy(f, copy, sizeof(copy)));
}

static void failed_migration_changes_nothing(void **state)
{
    struct fixture *f = *state;
    run_sql(f, "store.db", VERSION_0 "CREATE TABLE lease(x);");
    struct error why = {.code = OK};
    assert_int_not_equal(try_open(f, &why), OK);
    assert_non_null(strstr(why.text, "migration from schema 0"));
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"), 0);
    assert_int_equal(
        ask_sql(f, "store.db", "SELECT count(*) FROM sqlite_schema"), 1);
    char copy[256];
    assert_true(find_copy(f, copy, sizeof(copy)));
}

static void new_file_saves_no_copy(void **state)
{
    struct fixture *f = *state;
    char copy[256];
    assert_false(find_copy(f, copy, sizeof(copy)));
}

/* Later steps start from where the file is. */
static void steps_are_taken_in_order(void **state)
{
    struct fixture *f = *state;
    static const struct migration steps[] = {
        {0, "this was taken long ago"},
        {1, "CREATE TABLE second(x); INSERT INTO second VALUES(1);"},
        {2, "UPDATE second SET x = x + 1;"},
    };
    static const struct migration gap[] = {{0, ""}, {2, ""}};
    close_store(f);
    run_sql(f, "store.db", "PRAGMA user_version = 1");
    char path[512];
    db_path(f, "store.db", path, sizeof(path));
    struct conn *c;
    SUCCEEDS(conn_open(&c, path, CONN_WRITER, e));
    FAILS(ERR_INTERNAL, schema_apply(c, f->dir, gap, 2, e));
    SUCCEEDS(schema_apply(c, f->dir, steps, 3, e));
    conn_close(c);
    assert_int_equal(ask_sql(f, "store.db", "SELECT x FROM second"), 2);
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"), 3);
    assert_int_equal(ask_sql(f, "store.db", "SELECT count(*) FROM org"), 1);
}

static enum code count_lease(const struct store_lease *l, void *ctx,
                             struct error *e)
{
    (void)l, (void)e;
    ++*(int *)ctx;
    return OK;
}

static enum code put_document(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_document_put(tx, "policy", "pay", ctx, 5, e);
}

/* A file of the first release, as that release left it. */
static void schema_1_keeps_its_data(void **state)
{
    struct fixture *f = *state;
    char path[512];
    db_path(f, "store.db", path, sizeof(path));
    FD made = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(made >= 0);
    struct conn *c;
    SUCCEEDS(conn_open(&c, path, CONN_WRITER, e));
    SUCCEEDS(schema_apply(c, f->dir, schema_steps, 1, e));
    conn_close(c);
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"), 1);
    run_sql(f, "store.db",
            "INSERT INTO org VALUES(1, 'default', 7, '{}', x'00ff');"
            "INSERT INTO role VALUES(1, 'my-app', '{\"a\":1}', 3, 8);"
            "INSERT INTO record(line) VALUES('{}');"
            "INSERT INTO lease VALUES('01m7ystyxz25y5b3t5grqay39s', 1,"
            " 'my-app', 'user:7', 'p', '', 0, 1, 0, 0, 1, 2, 3, 4, 0, 'proj',"
            " 'name', 'id', 'key', 'base', '', NULL, NULL, 0, 0, '', '', '');");
    open_store(f, 0);
    char copy[256];
    assert_true(find_copy(f, copy, sizeof(copy)));
    assert_non_null(strstr(copy, ".v1-"));
    CLEANUP(store_role_clear) struct store_role role = {.org = 0};
    SUCCEEDS(store_role_get(f->s, 1, "my-app", &role, e));
    assert_string_equal(role.body, "{\"a\":1}");
    assert_int_equal(role.version, 3);
    CLEANUP(store_lease_clear) struct store_lease l = {.org = 0};
    SUCCEEDS(store_lease_get(f->s, "01m7ystyxz25y5b3t5grqay39s", &l, e));
    assert_string_equal(l.owner, "user:7");
    struct store_lease_query q = {.owner = "user:7", .live_only = true};
    int n = 0;
    SUCCEEDS(store_lease_each(f->s, &q, count_lease, &n, e));
    assert_int_equal(n, 1);
    char body[] = "{}";
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_document, body, e));
    close_store(f);
    assert_int_equal(ask_sql(f, "store.db", "PRAGMA user_version"),
                     STORE_SCHEMA);
    assert_int_equal(ask_sql(f, copy, "PRAGMA user_version"), 1);
    assert_int_equal(ask_sql(f, copy, "SELECT count(*) FROM lease"), 1);
    open_store(f, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define EMPTY(name)                                                            \
    cmocka_unit_test_setup_teardown(name, empty_set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_are_private),
        TEST(second_opener_is_busy),
        TEST(newer_schema_is_refused),
        EMPTY(other_programs_file_is_left_alone),
        TEST(loose_or_odd_files_are_refused),
        EMPTY(read_only_directory_is_named),
        EMPTY(migration_saves_the_old_file),
        EMPTY(schema_1_keeps_its_data),
        EMPTY(failed_migration_changes_nothing),
        TEST(new_file_saves_no_copy),
        TEST(steps_are_taken_in_order),
    };
    return cmocka_run_group_tests_name("store: open", tests, NULL, NULL);
}
