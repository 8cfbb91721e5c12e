/* test_cluster_change.c - cluster_change.c: what nodes tell each other of changed accounts, and
 * what becomes of the clients of a deleted system: those that are there, and those under admission.
 */
#include "cluster_change.h"

#include "cluster_fake.h"

static enum cluster_admission admit(const char *system, uint64_t request_id)
{
    return cluster_admit(fake.cluster, node.accounts,
                         &(struct ticket_claims){.system = str_from(system)}, request_id);
}

/* Redis answers a look-up. */
static void found(size_t which, const char *system)
{
    struct registry_event *event = fake_registry_event(REGISTRY_FOUND, system);

    event->id = fake.look_ups[which].id;
    event->found = REGISTRY_YES;
    fake_serve();
}

static void change(const char *system, bool deleted)
{
    cluster_change_account(fake.cluster, &node.hub, str_from(system), deleted);
}

/* The next message to this node is of a change. */
static bool told(size_t which, const char *system, bool deleted)
{
    const struct cluster_msg *msg = fake_sent_to(which);

    return CHECK(msg != NULL) && msg->kind == MSG_ACCOUNT && msg->deleted == deleted &&
           same(msg->command.system, str_from(system));
}

/* The other nodes are of versions 2, 1 and 2, and the last one has no link. */
static void set_versions(void)
{
    fake_peer(0)->version = fake_peer(2)->version = 2;
    fake_peer(1)->version = 1;
    fake_lose_link(2);
    fake_forget();
}

static void changes_are_told_to_those_who_understand(void)
{
    set_versions();
    change("shop", false);
    CHECK(told(0, "shop", false) && fake_sent_nothing());
    fake_forget();
    change("a \"b\"", true);
    CHECK(told(0, "a \"b\"", true) && fake_sent_nothing());
}

/* A node that is linked again is told what it may have missed, and no more. */
static void changes_are_told_again(void)
{
    set_versions();
    change("old", true);
    fake_wait(60000);
    fake_report(0, true);
    fake_lose_link(0);
    change("new", false);
    change("newer", true);
    fake_forget();
    fake_link_up(0);
    fake_serve();
    CHECK(told(0, "new", false) && told(0, "newer", true) && fake_sent_nothing());
    /* one that was not heard of since */
    fake_forget();
    fake_link_up(2);
    fake_serve();
    CHECK(told(2, "old", true) && told(2, "new", false) && told(2, "newer", true));
    CHECK(fake_sent_nothing());
    fake_forget();
    fake_link_up(1);
    fake_serve();
    CHECK(fake_sent_nothing()); /* version 1 */
}

static void only_so_many_changes_are_kept(void)
{
    fake_peer(0)->version = 2;
    fake_lose_link(0);
    for (int i = 0; i < CHANGES_MAX + 10; i++)
        change(textf("system %d", i), false);
    CHECK(fake.cluster->change_count == CHANGES_MAX);
    fake_forget();
    fake_link_up(0);
    fake_serve();
    for (int i = 10; i < CHANGES_MAX + 10; i++)
        CHECK(told(0, textf("system %d", i), false));
    CHECK(fake_sent_nothing());
}

/* Through this node, and through another. */
static void delete_through(bool here, const char *system)
{
    struct cluster_msg msg = {
        .kind = MSG_ACCOUNT, .deleted = true, .command = {.system = str_from(system)}};

    if (here)
        change(system, true);
    else
        fake_tell(0, &msg);
}

static void clients_of_a_deleted_system_are_closed(void)
{
    for (int here = 0; here < 2; here++) {
        fake_arrive(0, "shop");
        fake_arrive(1, "other");
        fake_put_into(0, "g");
        delete_through(here, "shop");
        flush();
        CHECK(got_close(&clients[0].far, 4401, "system deleted") && !clients[0].conn.client);
        CHECK(clients[1].conn.client && fake_got_nothing(1));
        CHECK(here || node_logged("system deleted through another node system=\"shop\""));
        fake_depart(0);
        fake_depart(1);
        fake_forget();
    }
    delete_through(false, "");
    delete_through(false, "nobody");
    CHECK(!hub_count_clients(&node.hub, STR("nobody")));
}

/* Another change closes nobody. */
static void a_changed_password_closes_nobody(void)
{
    struct cluster_msg msg = {.kind = MSG_ACCOUNT, .command = {.system = STR("shop")}};

    fake_arrive(0, "shop");
    cluster_use_accounts(fake.cluster, node.accounts);
    fake_tell(0, &msg);
    change("shop", false);
    flush();
    CHECK(clients[0].conn.client && fake_got_nothing(0));
    fake_depart(0);
}

/* Whether a system is registered was asked before it was deleted: the answer does not count. */
static void admissions_end_with_the_system(void)
{
    for (int here = 0; here < 2; here++) {
        uint64_t id = here ? 11 : 1;

        fake.binds_at_once = false;
        CHECK(admit("shop", id) == CLUSTER_ASKED && admit("other", id + 1) == CLUSTER_ASKED);
        CHECK(fake.look_up_count == 2);
        delete_through(here, "shop");
        CHECK(fake_result(id)->admission == CLUSTER_UNKNOWN && fake_no_result());
        found(0, "shop");
        found(1, "other");
        CHECK(admit("shop", id + 2) == CLUSTER_ASKED && fake.look_up_count == 3);
        CHECK(admit("other", id + 3) == CLUSTER_ASKED && fake.look_up_count == 3);
        /* it is registered again, and waits for its slot */
        found(2, "shop");
        CHECK(fake_no_result() && admit("shop", id + 4) == CLUSTER_ASKED);
        CHECK(fake.look_up_count == 3);
        delete_through(here, "shop");
        for (uint64_t i = 2; i < 5; i += 2)
            CHECK(fake_result(id + i)->admission == CLUSTER_UNKNOWN);
        CHECK(fake_no_result());
        fake_wait(FAKE_TIMEOUT);
        CHECK(fake_result(id + 1) && fake_result(id + 3) && fake_no_result());
        delete_through(here, "other");
        fake_forget();
        fake.binds_at_once = true;
    }
}

/* The admission has succeeded, and nobody has taken the result yet. */
static void results_end_with_the_system(void)
{
    CHECK(admit("shop", 1) == CLUSTER_ASKED && admit("other", 2) == CLUSTER_ASKED);
    found(0, "shop");
    found(1, "other");
    fake_serve();
    delete_through(true, "shop");
    CHECK(fake_result(1)->admission == CLUSTER_UNKNOWN);
    CHECK(fake_result(2)->admission == CLUSTER_ADMITTED && fake_no_result());
}

static const struct test tests[] = {
    TEST(changes_are_told_to_those_who_understand, 3),
    TEST(changes_are_told_again, 3),
    TEST(only_so_many_changes_are_kept, 1),
    TEST(clients_of_a_deleted_system_are_closed, 1),
    TEST(a_changed_password_closes_nobody, 1),
    TEST(admissions_end_with_the_system, 1),
    TEST(results_end_with_the_system, 1),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}
