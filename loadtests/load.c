/* A neutral load client: one thread, one epoll, many members.
 *
 * It plays real Yjs updates at Poisson arrivals and measures from the moment an update should have been sent. It reads
 * the struct clocks and the deleted ranges of whatever it receives, so that servers which merge, batch or echo are
 * judged alike: a delivery is one update that has reached one other member, however it was wrapped.
 *
 * Usage: load MODE --name value …   (see `parse_arguments`; modes: steady awareness join idle push churn)
 * It prints `start` and `stop` around what is to be measured, for the caller to read the server's CPU, then one line
 * of JSON. Exit code 2 and a sentence on stderr when it could not measure at all.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AUTHOR_BYTES = 5 };                                                   /* every client id is a varint of five */
static const uint8_t AUTHOR[AUTHOR_BYTES] = {0xff, 0xff, 0xff, 0xff, 0x0f}; /* the trace's own: traces.py */
static const uint64_t AUTHOR_ID = 0xffffffff;
static const uint32_t FIRST_CLIENT = 0x10000000; /* the least id whose varint has five bytes */

/* ------------------------------------------------------------------ what to do */

static struct {
    const char *mode, *path, *room, *trace, *document;
    int port, rooms, members, writers, stalled, at_once, cycles;
    bool hocuspocus, await_echo;
    double rate, warm, seconds, grace, timeout;
    uint64_t seed, document_clock;
} want = {.path = "/", .room = "room", .rooms = 1, .members = 2, .writers = -1, .at_once = 50, .rate = 4, .warm = 1,
          .seconds = 3, .grace = 3, .timeout = 30, .seed = 1};

static void fail(const char *form, ...) {
    va_list arguments;
    va_start(arguments, form);
    fputs("load: ", stderr);
    vfprintf(stderr, form, arguments);
    fputc('\n', stderr);
    exit(2);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) fail("out of memory");
    return memory;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint64_t chance_state;

static uint64_t chance(void) { /* xorshift: the same seed plays the same arrivals */
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state;
}

static double wait_for_next(double rate) { return -log((chance() >> 11) * 0x1p-53 + 0x1p-54) / rate; }

static void parse_arguments(int count, char **values) {
    if (count < 2) fail("say a mode: steady awareness join idle push churn");
    want.mode = values[1];
    for (int i = 2; i + 1 < count; i += 2) {
        const char *name = values[i], *value = values[i + 1];
        if (!strcmp(name, "--port")) want.port = atoi(value);
        else if (!strcmp(name, "--path")) want.path = value;          /* before the room: /ws/ */
        else if (!strcmp(name, "--room")) want.room = value;          /* rooms are called room-0, room-1, … */
        else if (!strcmp(name, "--dialect")) want.hocuspocus = !strcmp(value, "hocuspocus");
        else if (!strcmp(name, "--rooms")) want.rooms = atoi(value);
        else if (!strcmp(name, "--members")) want.members = atoi(value);   /* of each room */
        else if (!strcmp(name, "--writers")) want.writers = atoi(value);   /* of each room, the first ones */
        else if (!strcmp(name, "--stalled")) want.stalled = atoi(value);   /* of the first room, the last ones */
        else if (!strcmp(name, "--rate")) want.rate = atof(value);         /* updates or states a second of each */
        else if (!strcmp(name, "--warm")) want.warm = atof(value);
        else if (!strcmp(name, "--seconds")) want.seconds = atof(value);
        else if (!strcmp(name, "--grace")) want.grace = atof(value);       /* for what is under way at the end */
        else if (!strcmp(name, "--timeout")) want.timeout = atof(value);   /* to join */
        else if (!strcmp(name, "--at-once")) want.at_once = atoi(value);   /* joins under way */
        else if (!strcmp(name, "--cycles")) want.cycles = atoi(value);
        else if (!strcmp(name, "--seed")) want.seed = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--trace")) want.trace = value;             /* updates, each behind its length */
        else if (!strcmp(name, "--document")) want.document = value;       /* one update to push */
        else if (!strcmp(name, "--document-clock")) want.document_clock = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--echo")) want.await_echo = atoi(value);   /* an author's own update must come back */
        else fail("unknown argument %s", name);
    }
    if (want.writers < 0 || want.writers > want.members) want.writers = want.members;
    chance_state = want.seed * 0x9e3779b97f4a7c15u + 1;
}

/* ------------------------------------------------------------------ members */

enum State { UNUSED, CONNECTING, UPGRADING, JOINING, JOINED, CLOSED };

struct Bytes { /* that wait for the rest of a frame or for the socket, or are being written */
    uint8_t *bytes;
    size_t length, capacity;
};

static struct Member {
    int fd, room, place; /* place in the room: the first ones write */
    enum State state;
    bool stalled, wrote;
    uint32_t client;
    struct Bytes unread, unsent;
    double opened, *intended; /* of each update or state sent */
    int sent, room_for;
    uint64_t *seen;     /* a bit for each writer of the room and each of its updates */
    uint32_t *clocks;   /* of the last awareness state of each member of the room */
    uint64_t document_end;
    bool has_step_2;
} *members;

static int member_count, joined, closed, last_close_code, under_way, undecoded;
static int poller;
static uint64_t received_bytes, frames;

static void append(struct Bytes *queue, const void *bytes, size_t length) {
    if (queue->length + length > queue->capacity) {
        queue->capacity = (queue->length + length) * 2;
        queue->bytes = realloc(queue->bytes, queue->capacity);
        if (!queue->bytes) fail("out of memory");
    }
    memcpy(queue->bytes + queue->length, bytes, length);
    queue->length += length;
}

static void release(struct Bytes *queue) {
    free(queue->bytes);
    *queue = (struct Bytes){0};
}

static void lose(struct Member *member) {
    if (member->state == CLOSED) return;
    if (member->state != JOINED) under_way--;
    else joined--;
    if (!member->stalled) closed++;
    close(member->fd);
    member->state = CLOSED;
    release(&member->unread);
    release(&member->unsent);
}

static void watch(struct Member *member, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(member - members)};
    if (epoll_ctl(poller, how, member->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void send_bytes(struct Member *member, const uint8_t *bytes, size_t length) {
    size_t done = 0;
    if (!member->unsent.length) {
        ssize_t n = send(member->fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return lose(member);
        done = n < 0 ? 0 : (size_t)n;
    }
    if (done == length) return;
    if (!member->unsent.length) watch(member, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    append(&member->unsent, bytes + done, length - done);
}

static void send_rest(struct Member *member) {
    ssize_t n = send(member->fd, member->unsent.bytes, member->unsent.length, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) lose(member);
        return;
    }
    member->unsent.length -= (size_t)n;
    memmove(member->unsent.bytes, member->unsent.bytes + n, member->unsent.length);
    if (!member->unsent.length) {
        release(&member->unsent);
        watch(member, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void send_frame(struct Member *member, int opcode, const uint8_t *message, size_t length) {
    static uint8_t *frame;
    static size_t capacity;
    if (member->state == CLOSED) return;
    if (capacity < length + 14) {
        free(frame);
        frame = allocate(capacity = (length + 14) * 2, 1);
    }
    size_t at = 0;
    frame[at++] = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        frame[at++] = (uint8_t)(0x80 | length);
    } else {
        int size = length < 65536 ? 2 : 8;
        frame[at++] = size == 2 ? 0x80 | 126 : 0x80 | 127;
        for (int shift = size * 8 - 8; shift >= 0; shift -= 8) frame[at++] = (uint8_t)((uint64_t)length >> shift);
    }
    uint32_t key = (uint32_t)chance();
    memcpy(frame + at, &key, 4);
    const uint8_t *mask = frame + at;
    at += 4;
    for (size_t i = 0; i < length; i++) frame[at + i] = message[i] ^ mask[i & 3];
    send_bytes(member, frame, at + length);
}

/* ------------------------------------------------------------------ writing messages */

static void put_byte(struct Bytes *message, uint64_t value) {
    uint8_t byte = (uint8_t)value;
    append(message, &byte, 1);
}

static void put_varint(struct Bytes *message, uint64_t value) {
    for (; value > 127; value >>= 7) put_byte(message, value | 128);
    put_byte(message, value);
}

static void put_bytes(struct Bytes *message, const void *bytes, size_t length) {
    put_varint(message, length);
    append(message, bytes, length);
}

static struct Bytes *begin(struct Member *member, int type) { /* Hocuspocus says the document's name first */
    static struct Bytes message;
    message.length = 0;
    if (want.hocuspocus) {
        char name[128];
        put_bytes(&message, name, (size_t)snprintf(name, sizeof name, "%s-%d", want.room, member->room));
    }
    put_varint(&message, (uint64_t)type);
    return &message;
}

static void finish(struct Member *member, struct Bytes *message) {
    send_frame(member, 2, message->bytes, message->length);
}

static void send_sync(struct Member *member, int step, const uint8_t *body, size_t length) {
    struct Bytes *message = begin(member, 0);
    put_varint(message, (uint64_t)step);
    put_bytes(message, body, length);
    finish(member, message);
}

static void open_document(struct Member *member) {
    if (want.hocuspocus) {
        struct Bytes *message = begin(member, 2);
        put_varint(message, 0);
        put_bytes(message, "", 0); /* token */
        put_bytes(message, "4.7.0", 5);
        finish(member, message);
    }
    send_sync(member, 0, (const uint8_t *)"", 1); /* step 1 with an empty state vector: one zero byte */
}

/* ------------------------------------------------------------------ the trace */

static struct {
    uint8_t **updates;
    uint32_t *lengths;
    int count, *of_inserted, *of_deleted; /* clock → the update that inserted or deleted it */
    uint64_t clocks;
} trace;

static uint8_t *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot read %s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = allocate(*length, 1);
    if (fread(bytes, 1, *length, file) != *length) fail("cannot read %s", path);
    fclose(file);
    return bytes;
}

static void put_client(uint8_t *place, uint32_t client) {
    for (int i = 0; i < AUTHOR_BYTES; i++, client >>= 7) place[i] = (uint8_t)((client & 127) | (i < 4 ? 128 : 0));
}

/* ------------------------------------------------------------------ measuring */

enum { SLOTS = 1 << 20 }; /* ten microseconds each: up to ten seconds */
struct Latency {
    uint32_t *slots;
    uint64_t count;
    double worst;
};
static struct Latency latency, echo;
static double start_time, stop_time; /* what should have been sent between them is measured */
static uint64_t expected, delivered, echoes_expected, echoed, measured_expected, measured_delivered, arrived_in_time;
static uint64_t measured_sent;

static void record(struct Latency *of, double seconds) {
    if (!of->slots) of->slots = allocate(SLOTS, sizeof *of->slots);
    double slot = seconds * 1e5;
    of->slots[slot < 0 ? 0 : slot >= SLOTS ? SLOTS - 1 : (int)slot]++;
    of->count++;
    if (seconds > of->worst) of->worst = seconds;
}

static double percentile(const struct Latency *of, double share) {
    uint64_t left = (uint64_t)ceil(share * (double)of->count);
    if (!of->count) return 0;
    for (int i = 0; i < SLOTS; i++) {
        if (of->slots[i] >= left) return (i + 1) * 1e-2;
        left -= of->slots[i];
    }
    return of->worst * 1e3;
}

static bool is_measured(double intended) { return intended >= start_time && intended < stop_time; }

static void deliver(double intended, double at) {
    delivered++;
    if (at >= start_time && at < stop_time) arrived_in_time++;
    if (is_measured(intended)) {
        measured_delivered++;
        record(&latency, at - intended);
    }
}

static double arrival; /* when the bytes at hand were read */
static int seen_words;

static void mark(struct Member *member, int writer, const int *owners, uint64_t clock, uint64_t length) {
    struct Member *author = &members[member->room * want.members + writer];
    uint64_t *seen = member->seen + (size_t)writer * (size_t)seen_words;
    for (uint64_t i = clock; i < clock + length && i < trace.clocks; i++) {
        int update = owners[i];
        if (update < 0 || update >= author->sent || seen[update >> 6] >> (update & 63) & 1) continue;
        seen[update >> 6] |= (uint64_t)1 << (update & 63);
        if (member != author) {
            deliver(author->intended[update], arrival);
        } else {
            echoed++;
            if (is_measured(author->intended[update])) record(&echo, arrival - author->intended[update]);
        }
    }
}

/* ------------------------------------------------------------------ reading updates */

struct Reader {
    const uint8_t *at, *end;
    bool wrong;
};

static uint64_t take_varint(struct Reader *reader) {
    uint64_t value = 0;
    for (int shift = 0; reader->at < reader->end && shift < 64; shift += 7) {
        uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
    reader->wrong = true;
    return 0;
}

static struct Reader take_bytes(struct Reader *reader) {
    uint64_t length = take_varint(reader);
    if (length > (uint64_t)(reader->end - reader->at)) {
        reader->wrong = true;
        length = 0;
    }
    struct Reader part = {reader->at, reader->at + length, false};
    reader->at += length;
    return part;
}

static uint64_t units(struct Reader text) { /* of UTF-16, as Yjs counts */
    uint64_t count = 0;
    for (const uint8_t *at = text.at; at < text.end; at++) count += ((*at & 0xc0) != 0x80) + (*at >= 0xf0);
    return count;
}

typedef void Found(void *context, uint64_t client, uint64_t clock, uint64_t length, bool is_deletion);

static uint64_t take_content(struct Reader *reader, int kind) { /* its length in clocks */
    uint64_t count = 1;
    switch (kind) {
    case 1: return take_varint(reader); /* deleted */
    case 2:                             /* JSON */
        count = take_varint(reader);
        for (uint64_t i = 0; i < count && !reader->wrong; i++) take_bytes(reader);
        return count;
    case 3: case 5: take_bytes(reader); return 1; /* binary, embed */
    case 4: return units(take_bytes(reader));     /* string */
    case 6: take_bytes(reader); take_bytes(reader); return 1; /* format */
    case 7:                                                   /* a shared type */
        count = take_varint(reader);
        if (count == 3 || count == 5) take_bytes(reader);
        return 1;
    default: reader->wrong = true; return 0;
    }
}

static void read_update(struct Reader reader, Found *found, void *context) {
    for (uint64_t clients = take_varint(&reader); clients && !reader.wrong; clients--) {
        uint64_t structs = take_varint(&reader), client = take_varint(&reader), clock = take_varint(&reader);
        for (; structs && !reader.wrong; structs--) {
            if (reader.at == reader.end) reader.wrong = true;
            int info = reader.wrong ? 0 : *reader.at++, kind = info & 31;
            uint64_t length;
            if (kind == 0 || kind == 10) {
                length = take_varint(&reader);
            } else {
                if (info & 0x80) take_varint(&reader), take_varint(&reader);
                if (info & 0x40) take_varint(&reader), take_varint(&reader);
                if (!(info & 0xc0)) {
                    if (take_varint(&reader) == 1) take_bytes(&reader);
                    else take_varint(&reader), take_varint(&reader);
                    if (info & 0x20) take_bytes(&reader);
                }
                length = take_content(&reader, kind);
            }
            if (kind != 10 && !reader.wrong) found(context, client, clock, length, false); /* 10: a gap */
            clock += length;
        }
    }
    for (uint64_t clients = take_varint(&reader); clients && !reader.wrong; clients--) {
        uint64_t client = take_varint(&reader);
        for (uint64_t ranges = take_varint(&reader); ranges && !reader.wrong; ranges--) {
            uint64_t clock = take_varint(&reader), length = take_varint(&reader);
            if (!reader.wrong) found(context, client, clock, length, true);
        }
    }
    if (reader.wrong) undecoded++;
}

static void found_in_trace(void *context, uint64_t client, uint64_t clock, uint64_t length, bool is_deletion) {
    int update = *(int *)context;
    if (client != AUTHOR_ID) fail("the trace has a client id of its own");
    while (clock + length > trace.clocks) {
        uint64_t before = trace.clocks;
        trace.clocks = before ? before * 2 : 1 << 16;
        trace.of_inserted = realloc(trace.of_inserted, trace.clocks * sizeof(int));
        trace.of_deleted = realloc(trace.of_deleted, trace.clocks * sizeof(int));
        for (uint64_t i = before; i < trace.clocks; i++) trace.of_inserted[i] = trace.of_deleted[i] = -1;
    }
    for (uint64_t i = clock; i < clock + length; i++) (is_deletion ? trace.of_deleted : trace.of_inserted)[i] = update;
}

static void load_trace(void) {
    size_t length;
    uint8_t *bytes = read_file(want.trace, &length);
    int capacity = 0;
    for (size_t at = 0; at + 4 <= length;) {
        uint32_t size;
        memcpy(&size, bytes + at, 4);
        at += 4;
        if (size > length - at) fail("%s is cut short", want.trace);
        if (trace.count == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            trace.updates = realloc(trace.updates, (size_t)capacity * sizeof *trace.updates);
            trace.lengths = realloc(trace.lengths, (size_t)capacity * sizeof *trace.lengths);
        }
        trace.updates[trace.count] = bytes + at;
        trace.lengths[trace.count] = size;
        read_update((struct Reader){bytes + at, bytes + at + size, false}, found_in_trace, &trace.count);
        trace.count++;
        at += size;
    }
    if (undecoded) fail("%s cannot be read", want.trace);
}

static void found_in_frame(void *context, uint64_t client, uint64_t clock, uint64_t length, bool is_deletion) {
    struct Member *member = context;
    if (client == AUTHOR_ID) {
        if (!is_deletion && clock + length > member->document_end) member->document_end = clock + length;
        return;
    }
    uint64_t index = client - FIRST_CLIENT;
    if (!member->seen || client < FIRST_CLIENT || index >= (uint64_t)member_count) return;
    if (members[index].room != member->room || members[index].place >= want.writers) return;
    mark(member, members[index].place, is_deletion ? trace.of_deleted : trace.of_inserted, clock, length);
}

static void read_awareness(struct Member *member, struct Reader reader) {
    for (uint64_t states = take_varint(&reader); states && !reader.wrong; states--) {
        uint64_t client = take_varint(&reader), clock = take_varint(&reader), index = client - FIRST_CLIENT;
        take_bytes(&reader);
        if (!member->clocks || reader.wrong || client < FIRST_CLIENT || index >= (uint64_t)member_count) continue;
        struct Member *author = &members[index];
        uint32_t *last = &member->clocks[author->place];
        if (author->room != member->room || author == member || clock > (uint64_t)author->sent) continue;
        while (*last < clock) deliver(author->intended[(*last)++], arrival); /* what was overtaken is covered too */
    }
    if (reader.wrong) undecoded++;
}

/* ------------------------------------------------------------------ reading frames */

static void become_joined(struct Member *member) {
    if (member->state != JOINING || !member->has_step_2 || member->document_end < want.document_clock) return;
    member->state = JOINED;
    under_way--;
    joined++;
    if (start_time && start_time <= member->opened) record(&latency, arrival - member->opened);
}

static void receive_message(struct Member *member, struct Reader *reader) {
    uint64_t type = take_varint(reader);
    if (type == 0) {
        uint64_t step = take_varint(reader);
        struct Reader body = take_bytes(reader);
        if (step == 0) return send_sync(member, 1, (const uint8_t *)"\0", 2); /* we hold nothing they lack */
        read_update(body, found_in_frame, member);
        member->has_step_2 |= step == 1;
        become_joined(member);
    } else if (type == 1) {
        read_awareness(member, take_bytes(reader));
    } else if (want.hocuspocus && type == 2 && take_varint(reader) == 1) {
        fail("permission denied");
    } else {
        reader->at = reader->end;
    }
}

static void receive_frame(struct Member *member, int opcode, struct Reader reader) {
    frames++;
    if (opcode == 9) return send_frame(member, 10, reader.at, (size_t)(reader.end - reader.at));
    if (opcode == 8) {
        if (reader.end - reader.at >= 2) last_close_code = reader.at[0] << 8 | reader.at[1];
        return lose(member);
    }
    if (opcode != 2) return;
    if (want.hocuspocus) {
        if (reader.end - reader.at == 1 && *reader.at == 9) return send_frame(member, 2, (const uint8_t *)"\x0a", 1);
        take_bytes(&reader); /* the document's name */
    }
    do receive_message(member, &reader);
    while (reader.at < reader.end && !reader.wrong && member->state != CLOSED);
    if (reader.wrong) undecoded++;
}

static size_t receive_bytes(struct Member *member, const uint8_t *bytes, size_t length) { /* how many it could use */
    size_t used = 0;
    if (member->state == UPGRADING) {
        const uint8_t *end = memmem(bytes, length, "\r\n\r\n", 4);
        if (!end) return 0;
        if (length < 12 || memcmp(bytes + 8, " 101", 4)) {
            lose(member);
            return length;
        }
        used = (size_t)(end - bytes) + 4;
        member->state = JOINING;
        open_document(member);
    }
    while (length - used >= 2 && member->state != CLOSED) {
        const uint8_t *frame = bytes + used;
        uint64_t size = frame[1] & 127, head = 2;
        if (size >= 126) {
            head = size == 126 ? 4 : 10;
            if (length - used < head) break;
            size = 0;
            for (uint64_t i = 2; i < head; i++) size = size << 8 | frame[i];
        }
        if (length - used - head < size || length - used < head) break;
        if (!(frame[0] & 0x80)) fail("the server fragments its frames");
        used += head + size;
        receive_frame(member, frame[0] & 15, (struct Reader){frame + head, frame + head + size, false});
    }
    return used;
}

static void readable(struct Member *member) {
    static uint8_t bytes[1 << 18];
    ssize_t n = recv(member->fd, bytes, sizeof bytes, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) lose(member);
        return;
    }
    received_bytes += (uint64_t)n;
    arrival = now();
    struct Bytes *unread = &member->unread;
    if (!unread->length) {
        size_t used = receive_bytes(member, bytes, (size_t)n);
        if (used < (size_t)n && member->state != CLOSED) append(unread, bytes + used, (size_t)n - used);
        return;
    }
    append(unread, bytes, (size_t)n);
    size_t used = receive_bytes(member, unread->bytes, unread->length);
    if (member->state == CLOSED) return;
    if (used == unread->length) return release(unread);
    unread->length -= used;
    memmove(unread->bytes, unread->bytes + used, unread->length);
}

/* Handle what the sockets have for at most so long. */
static void turn(double seconds) {
    static struct epoll_event events[256];
    struct timespec wait = {(time_t)fmax(seconds, 0), (long)(fmod(fmax(seconds, 0), 1) * 1e9)};
    int count = epoll_pwait2(poller, events, 256, &wait, NULL);
    if (count < 0 && errno != EINTR) fail("epoll_pwait2: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct Member *member = &members[events[i].data.u32];
        if (member->state != CLOSED && events[i].events & EPOLLOUT && member->unsent.length) send_rest(member);
        if (member->state != CLOSED && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(member);
    }
}

/* ------------------------------------------------------------------ joining */

static bool try_to_open(struct Member *member) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)want.port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1, little = 4096;
    if (fd < 0) fail("socket: %s", strerror(errno));
    if (member->stalled) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    double opened = now();
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        close(fd);
        return false;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    member->fd = fd;
    member->opened = opened;
    member->state = UPGRADING;
    under_way++;
    watch(member, EPOLLIN, EPOLL_CTL_ADD);
    char request[512], room[160] = "";
    if (!want.hocuspocus) snprintf(room, sizeof room, "%s-%d", want.room, member->room);
    int length = snprintf(request, sizeof request,
                          "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmV1dHJhbCBsb2FkIGNsaQ==\r\n\r\n",
                          want.path, room, want.port);
    send_bytes(member, (const uint8_t *)request, (size_t)length);
    return true;
}

static void prepare_members(void) {
    member_count = want.rooms * want.members;
    members = allocate((size_t)member_count, sizeof *members);
    for (int i = 0; i < member_count; i++) {
        members[i].fd = -1;
        members[i].room = i / want.members;
        members[i].place = i % want.members;
        members[i].client = FIRST_CLIENT + (uint32_t)i;
        members[i].stalled = members[i].room == 0 && members[i].place >= want.members - want.stalled;
    }
}

/* Open the members up to this one, so many at once, and wait until each holds the document; a connection refused is
 * tried again. */
static void join(int last) {
    double deadline = now() + want.timeout;
    for (int opened = joined; joined < last;) {
        while (opened < last && under_way < want.at_once && try_to_open(&members[opened])) opened++;
        if (closed) fail("%d of %d connections were closed while joining (code %d)", closed, opened, last_close_code);
        if (now() > deadline) fail("%d of %d members have joined in %.0f s", joined, last, want.timeout);
        turn(opened < last && under_way < want.at_once ? 0.0005 : 0.05);
    }
}

static void rest(double seconds) {
    for (double end = now() + seconds; now() < end;) turn(end - now());
}

/* ------------------------------------------------------------------ modes */

static struct rusage before;
static double busy_seconds;

static double cpu(const struct rusage *usage) {
    return usage->ru_utime.tv_sec + usage->ru_stime.tv_sec + (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1e-6;
}

static void announce(const char *word) {
    printf("%s\n", word);
    fflush(stdout);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (!strcmp(word, "start")) before = usage;
    else busy_seconds = cpu(&usage) - cpu(&before);
}

static void note_sent(struct Member *author, double intended) {
    if (author->sent == author->room_for) {
        author->room_for = author->room_for ? author->room_for * 2 : 64;
        author->intended = realloc(author->intended, (size_t)author->room_for * sizeof *author->intended);
        if (!author->intended) fail("out of memory");
    }
    author->intended[author->sent++] = intended;
    int listeners = want.members - 1 - (author->room == 0 ? want.stalled : 0);
    expected += (uint64_t)listeners;
    if (!is_measured(intended)) return;
    measured_sent++;
    measured_expected += (uint64_t)listeners;
}

static void send_update(struct Member *author, double intended) {
    static uint8_t *update;
    static size_t capacity;
    int index = author->sent;
    if (author->state != JOINED || index >= trace.count || index >= seen_words * 64) return;
    size_t length = trace.lengths[index];
    if (length > capacity) {
        free(update);
        update = allocate(capacity = length * 2, 1);
    }
    memcpy(update, trace.updates[index], length);
    for (uint8_t *at = update; (at = memmem(at, length - (size_t)(at - update), AUTHOR, AUTHOR_BYTES)); at += 5)
        put_client(at, author->client);
    note_sent(author, intended);
    echoes_expected++;
    send_sync(author, 2, update, length);
}

static void send_state(struct Member *author, double intended) {
    if (author->state != JOINED) return;
    note_sent(author, intended);
    char state[200];
    int cursor = (int)(chance() % 100000);
    int length = snprintf(state, sizeof state,
                          "{\"user\":{\"name\":\"member %d\",\"color\":\"#30bced\",\"colorLight\":\"#30bced33\"},"
                          "\"cursor\":{\"anchor\":%d,\"head\":%d}}", author->place, cursor, cursor + 3);
    struct Bytes body = {0};
    put_varint(&body, 1);
    put_varint(&body, author->client);
    put_varint(&body, (uint64_t)author->sent);
    put_bytes(&body, state, (size_t)length);
    struct Bytes *message = begin(author, 1);
    put_bytes(message, body.bytes, body.length);
    finish(author, message);
    free(body.bytes);
}

static void prepare_to_measure(bool is_awareness) {
    double most = want.rate * (want.warm + want.seconds);
    seen_words = ((int)(most + 8 * sqrt(most)) + 128) / 64;
    for (int i = 0; i < member_count; i++) {
        if (is_awareness) members[i].clocks = allocate((size_t)want.members, sizeof(uint32_t));
        else members[i].seen = allocate((size_t)want.writers * (size_t)seen_words, sizeof(uint64_t));
        if (members[i].stalled) epoll_ctl(poller, EPOLL_CTL_DEL, members[i].fd, NULL);
    }
}

static bool is_all_there(bool is_awareness) {
    return delivered == expected && (is_awareness || !want.await_echo || echoed == echoes_expected);
}

/* Writers type (or members move their cursors) at Poisson arrivals; then a grace for what is under way. */
static void run_steady(bool is_awareness) {
    int writers = is_awareness ? want.members - want.stalled : want.writers;
    double total = want.rate * writers * want.rooms;
    if (!is_awareness) load_trace();
    prepare_members();
    join(member_count);
    prepare_to_measure(is_awareness);
    rest(0.3);
    double begun = now(), next = begun + wait_for_next(total);
    start_time = begun + want.warm;
    stop_time = start_time + want.seconds;
    bool is_started = false, is_stopped = false;
    while (true) {
        double time = now();
        if (!is_started && time >= start_time) is_started = (announce("start"), true);
        if (!is_stopped && time >= stop_time) is_stopped = (announce("stop"), true);
        for (int burst = 0; next <= time && next < stop_time && burst < 64; burst++) {
            struct Member *author = &members[chance() % (uint64_t)want.rooms * (uint64_t)want.members +
                                             chance() % (uint64_t)writers];
            if (is_awareness) send_state(author, next);
            else send_update(author, next);
            next += wait_for_next(total);
        }
        if (is_stopped && (is_all_there(is_awareness) || time > stop_time + want.grace)) break;
        double until = !is_started ? start_time : !is_stopped ? stop_time : stop_time + want.grace;
        turn(fmin(next < stop_time ? next : until, until) - now());
    }
}

/* Bring a document into the first room, and wait until it comes back: by then the server has it. */
static void push(void) {
    size_t length;
    uint8_t *update = read_file(want.document, &length);
    uint64_t clock = want.document_clock;
    want.document_clock = 0;
    join(1);
    want.document_clock = clock;
    send_sync(&members[0], 2, update, length);
    free(update);
    for (double deadline = now() + want.timeout; members[0].document_end < clock;) {
        if (closed) fail("the document was refused (code %d)", last_close_code);
        if (now() > deadline) fail("the document has not come back in %.0f s", want.timeout);
        turn(0.05);
    }
}

/* All members ask for the whole document at nearly the same time; where one is given, the first brings it and stays. */
static void run_join(void) {
    prepare_members();
    if (want.document) {
        push();
        rest(want.warm);
    }
    start_time = now();
    stop_time = start_time + 1e9;
    announce("start");
    join(member_count);
    stop_time = now();
    announce("stop");
}

static void run_push(void) {
    prepare_members();
    push();
}

static void run_idle(void) {
    prepare_members();
    join(member_count);
    announce("start");
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!poll(&input, 1, 0) && !closed) turn(0.05); /* until the caller has read what it wants, and says so */
    announce("stop");
}

/* Rooms that are opened, written to once and left, so many at a time; a mark after each tenth of them. */
static void run_churn(void) {
    int cycles = want.cycles, done = 0, opened = 0;
    load_trace();
    want.rooms = cycles;
    want.members = want.writers = 1;
    prepare_members();
    seen_words = 1;
    start_time = now();
    announce("start");
    double deadline = now() + want.timeout;
    for (int first = 0; done < cycles;) {
        while (opened < cycles && opened - done < want.at_once && try_to_open(&members[opened])) {
            members[opened].seen = allocate(1, sizeof(uint64_t));
            opened++;
        }
        turn(0.05);
        for (int i = first; i < opened; i++) {
            struct Member *member = &members[i];
            if (member->state == JOINED && !member->wrote) {
                member->wrote = true;
                send_update(member, now());
            } else if (member->wrote && member->fd >= 0 && *member->seen) {
                shutdown(member->fd, SHUT_RDWR); /* gone without a word, as a closed laptop */
                close(member->fd);
                member->fd = -1;
                member->state = CLOSED;
                release(&member->unread);
                if (++done % (cycles / 10) == 0) printf("at %d\n", done), fflush(stdout);
            }
        }
        while (first < opened && members[first].fd < 0) first++;
        if (closed) fail("a connection was closed (code %d)", last_close_code);
        if (now() > deadline) fail("%d of %d rooms in %.0f s", done, cycles, want.timeout);
    }
    stop_time = now();
    announce("stop");
}

static void report(double wall) {
    printf("{\"sent\": %lu, \"expected\": %lu, \"delivered\": %lu, \"missing\": %lu, \"echo_missing\": %ld, "
           "\"measured_sent\": %lu, \"measured_delivered\": %lu, \"arrived\": %lu, \"closed\": %d, \"close_code\": %d, "
           "\"undecoded\": %d, \"joined\": %d, \"frames\": %lu, \"bytes\": %lu, \"seconds\": %.6f, \"busy\": %.3f, "
           "\"p50_ms\": %.2f, \"p95_ms\": %.2f, \"p99_ms\": %.2f, \"max_ms\": %.2f, "
           "\"echo_p50_ms\": %.2f, \"echo_p95_ms\": %.2f, \"echo_p99_ms\": %.2f, \"finished\": %.6f}\n",
           echoes_expected, expected, delivered, expected - delivered,
           want.await_echo ? (long)(echoes_expected - echoed) : 0, measured_sent, measured_delivered, arrived_in_time,
           closed, last_close_code, undecoded, joined, frames, received_bytes, wall, wall > 0 ? busy_seconds / wall : 0,
           percentile(&latency, .50), percentile(&latency, .95), percentile(&latency, .99), latency.worst * 1e3,
           percentile(&echo, .50), percentile(&echo, .95), percentile(&echo, .99), now());
}

int main(int count, char **values) {
    parse_arguments(count, values);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    bool is_steady = !strcmp(want.mode, "steady"), is_awareness = !strcmp(want.mode, "awareness");
    if (is_steady || is_awareness) run_steady(is_awareness);
    else if (!strcmp(want.mode, "join")) run_join();
    else if (!strcmp(want.mode, "idle")) run_idle();
    else if (!strcmp(want.mode, "push")) run_push();
    else if (!strcmp(want.mode, "churn")) run_churn();
    else fail("unknown mode %s", want.mode);
    report(stop_time - start_time);
    return 0;
}
