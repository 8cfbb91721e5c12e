/* fuzz_ws.c - the frames of ws.c: a reader comes to the same messages however the bytes are cut,
 * takes no more than it was given, hands over views of that, and reads what is written here. */
#include "ws.h"

#include "fuzz.h"

/* What a reader has told, with the pieces of each message put together. */
struct story {
    struct buf told, message;
    bool over; /* the peer broke the protocol */
};

static void tell(struct story *story, const char *what, unsigned number, struct str text)
{
    buf_append(&story->told, str_from(what));
    buf_append_number(&story->told, (int64_t)number);
    buf_append(&story->told, STR(" "));
    buf_append_number(&story->told, (int64_t)text.length);
    buf_append(&story->told, STR(":"));
    buf_append(&story->told, text);
}

static bool may_be_sent(unsigned code)
{
    return (code >= 1000 && code < 1015 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code < 5000);
}

static void tell_data(struct story *story, const struct ws_event *event, uint32_t limit)
{
    REQUIRE(event->opcode == WS_TEXT || event->opcode == WS_BINARY);
    buf_append(&story->message, event->payload);
    REQUIRE(story->message.length <= limit);
    if (!event->last)
        return;
    REQUIRE(event->opcode == WS_BINARY || utf8_valid(str_of(&story->message)));
    tell(story, "message ", event->opcode, str_of(&story->message));
    story->message.length = 0;
}

static void tell_control(struct story *story, const struct ws_event *event)
{
    REQUIRE(event->opcode >= WS_CLOSE && event->opcode <= WS_PONG);
    REQUIRE(event->payload.length <= WS_CONTROL_MAX);
    if (event->opcode == WS_CLOSE) {
        REQUIRE(event->code == WS_CLOSE_NO_STATUS ? !event->payload.length
                                                  : may_be_sent(event->code));
        REQUIRE(utf8_valid(event->payload));
        tell(story, "code ", event->code, (struct str){0});
    }
    /* where in a message it came belongs to the story */
    tell(story, "at ", (unsigned)story->message.length, (struct str){0});
    tell(story, "control ", event->opcode, event->payload);
}

/* Takes the events of what is there; returns how much of it was used. */
static size_t read_events(struct ws_reader *reader, struct feed *feed, struct story *story)
{
    size_t total = 0;

    while (!story->over) {
        struct ws_event event;
        struct str rest = behind(feed_view(feed), total);
        size_t used = ws_read(reader, (char *)(uintptr_t)rest.at, rest.length, &event);

        REQUIRE(used <= rest.length);
        if (event.type == WS_EVENT_MORE) {
            REQUIRE(used == 0 && rest.length < 14 + WS_CONTROL_MAX);
            break;
        }
        if (event.type == WS_EVENT_BAD) {
            REQUIRE(event.error && may_be_sent(event.code) && strlen(event.error) <= 123);
            tell(story, "bad ", event.code, str_from(event.error));
            story->over = true;
            break;
        }
        REQUIRE(used > 0 && is_inside(event.payload, (struct str){rest.at, used}));
        if (event.type == WS_EVENT_DATA)
            tell_data(story, &event, reader->limit);
        else
            tell_control(story, &event);
        total += used;
    }
    return total;
}

static void read_story(struct str bytes, struct ws_reader reader, uint32_t split,
                       struct story *story)
{
    struct feed feed = {0};
    size_t used = 0;

    *story = (struct story){0};
    do {
        size_t piece = next_piece(&split, bytes.length);

        feed_next(&feed, used, (struct str){bytes.at, piece});
        bytes = behind(bytes, piece);
        used = read_events(&reader, &feed, story);
    } while (bytes.length && !story->over);
    if (!story->over) {
        tell(story, "begun ", reader.message, str_of(&story->message));
        tell(story, "rest ", reader.left, behind(feed_view(&feed), used));
    }
    feed_free(&feed);
}

static void free_story(struct story *story)
{
    buf_free(&story->told);
    buf_free(&story->message);
}

static void require_story(struct str bytes, struct ws_reader reader, uint32_t split,
                          const struct story *expected)
{
    struct story story;

    read_story(bytes, reader, split, &story);
    REQUIRE(str_equal(str_of(&story.told), str_of(&expected->told)));
    free_story(&story);
}

static void try_frames(struct str bytes, struct ws_reader reader, uint32_t split)
{
    struct story whole;

    read_story(bytes, reader, 0, &whole);
    require_story(bytes, reader, 1, &whole);
    require_story(bytes, reader, split + 2, &whole);
    free_story(&whole);
}

/* Appends a frame as this side or the other writes it. */
static void append_frame(struct buf *out, bool from_server, enum ws_opcode opcode,
                         struct str payload, const uint8_t mask[4])
{
    struct rcbuf *message =
        from_server ? ws_frame(opcode, payload) : ws_masked_frame(opcode, payload, mask);

    REQUIRE(message != NULL);
    buf_append(out, (struct str){message->bytes, message->length});
    rcbuf_release(message);
}

/* Writes frames, and tells what is to be read. */
static void write_story(struct fuzz *fuzz, bool from_server, struct buf *out, struct story *story)
{
    while (fuzz->length) {
        unsigned kind = fuzz_byte(fuzz);
        uint8_t mask[4] = {(uint8_t)kind, (uint8_t)fuzz_byte(fuzz), (uint8_t)(kind * 7), 0x5a};
        struct str payload = fuzz_take(fuzz, kind & 16 ? fuzz_byte(fuzz) : kind >> 5);
        struct ws_event event = {.type = WS_EVENT_DATA, .payload = payload, .last = true};

        event.opcode = kind & 1 && utf8_valid(payload) ? WS_TEXT : WS_BINARY;
        if (kind & 2 && payload.length <= WS_CONTROL_MAX) {
            event.opcode = kind & 4 ? WS_PING : WS_PONG;
            tell_control(story, &event);
        } else {
            tell_data(story, &event, 255);
        }
        append_frame(out, from_server, event.opcode, payload, mask);
    }
    tell(story, "begun ", 0, (struct str){0});
    tell(story, "rest ", 0, (struct str){0});
}

static void try_writing(struct fuzz *fuzz, struct ws_reader reader, uint32_t split)
{
    struct buf bytes = {0};
    struct story story = {0};

    reader.limit = 255;
    write_story(fuzz, reader.from_server, &bytes, &story);
    for (uint32_t how = 0; how <= 2; how++)
        require_story(str_of(&bytes), reader, how < 2 ? how : split + 2, &story);
    free_story(&story);
    buf_free(&bytes);
}

/* A close frame says what it was made of. */
static void try_close(struct fuzz *fuzz)
{
    unsigned code = fuzz_byte(fuzz) << 8 | fuzz_byte(fuzz);
    struct str reason = fuzz_take(fuzz, 2 * WS_CONTROL_MAX);
    struct ws_reader reader = {.from_server = true};
    struct rcbuf *message = ws_close_frame(code, reason);
    struct ws_event event;
    size_t used;

    REQUIRE(message && message->length <= WS_HEADER_MAX + WS_CONTROL_MAX);
    used = ws_read(&reader, message->bytes, message->length, &event);
    reason.length = reason.length < WS_CONTROL_MAX - 2 ? reason.length : WS_CONTROL_MAX - 2;
    if (code == WS_CLOSE_NO_STATUS) {
        REQUIRE(event.type == WS_EVENT_CONTROL && event.code == code && !event.payload.length);
    } else if (may_be_sent(code) && utf8_valid(reason)) {
        REQUIRE(event.type == WS_EVENT_CONTROL && event.opcode == WS_CLOSE);
        REQUIRE(used == message->length && event.code == code);
        REQUIRE(str_equal(event.payload, reason));
    } else {
        REQUIRE(event.type == WS_EVENT_BAD);
    }
    rcbuf_release(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};
    unsigned kind = fuzz_byte(&fuzz);
    uint32_t split = fuzz_byte(&fuzz);
    struct ws_reader reader = {.from_server = kind & 1,
                               .limit = kind & 2 ? 100000 : 4 + (kind >> 4) * 16};

    if ((kind & 12) == 12)
        try_close(&fuzz);
    else if ((kind & 12) == 8)
        try_writing(&fuzz, reader, split);
    else
        try_frames(fuzz_rest(&fuzz), reader, split);
    return 0;
}
