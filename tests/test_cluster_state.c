/* test_cluster_state.c - cluster_state.c: slots are bound as long as somebody needs them, requests
 * are told once, and what can be published now. */
#include "cluster_fake.h"

static void it_starts(void)
{
    fake_start(2);
    fake_arrive(0, "shop");
    fake_put_into(0, "g");
    fake_settle();
    fake_depart(0);
    fake_settle();
    fake_end();
}

int main(void)
{
    test_run("it_starts", it_starts);
    buf_free(&fake_outcome.list);
    fake_free_reading();
    return test_finish();
}
