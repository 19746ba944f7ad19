// The publisher and the subscriber of the comparison, for ZeroMQ: the same as in roles.rs.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void publish(void *context, const char *address, char **numbers) {
    size_t len = strtoull(numbers[0], NULL, 10);
    uint64_t rate = strtoull(numbers[1], NULL, 10);
    uint64_t length = strtoull(numbers[2], NULL, 10) * 1000000;
    int subscribers = atoi(numbers[3]);
    void *socket = zmq_socket(context, ZMQ_XPUB);
    // Blocks where it would drop.
    zmq_setsockopt(socket, ZMQ_XPUB_NODROP, &(int){1}, sizeof(int));
    zmq_setsockopt(socket, ZMQ_XPUB_VERBOSE, &(int){1}, sizeof(int));
    zmq_bind(socket, address);
    char subscription[64];
    for (int i = 0; i < subscribers; i++) zmq_recv(socket, subscription, sizeof subscription, 0);
    char *payload = malloc(len);
    memset(payload, 0x5a, len);
    uint64_t started = now(), idle_until = started, sent = 0, time;
    uint64_t counts_from = started + (rate > 0 ? 500000000 : 0);
    while ((time = now()) < counts_from + length) {
        if (rate > 0) {
            uint64_t due = started + sent * 1000000000 / rate;
            if (time < due) {
                struct timespec rest = {0, due - time};
                nanosleep(&rest, NULL);
                idle_until = now();
            }
            time = due > idle_until ? due : idle_until;
            if (due < counts_from) time = 0;
        } else {
            time = 0;
        }
        memcpy(payload, &time, 8);
        zmq_send(socket, payload, len, 0);
        sent++;
    }
    memset(payload, 0xff, 8);
    zmq_send(socket, payload, len, 0);
    zmq_close(socket);
}

static void subscribe(void *context, const char *address) {
    void *socket = zmq_socket(context, ZMQ_SUB);
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0);
    // Who connects again after the last message waits for it in vain.
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &(int){5000}, sizeof(int));
    zmq_connect(socket, address);
    puts("ready");
    fflush(stdout);
    size_t arrivals_max = 1000000, arrivals = 0;
    uint64_t(*arrival)[2] = malloc(arrivals_max * sizeof *arrival);
    uint64_t first = 0, last = 0, messages = 0, sent;
    for (;;) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, 0) < 0) break;
        memcpy(&sent, zmq_msg_data(&message), 8);
        zmq_msg_close(&message);
        if (sent == UINT64_MAX) break;
        last = now();
        if (messages++ == 0) first = last;
        if (sent != 0 && arrivals < arrivals_max) {
            arrival[arrivals][0] = last;
            arrival[arrivals++][1] = last - sent;
        }
    }
    printf("%llu %f\n", (unsigned long long)messages, (last - first) / 1e9);
    for (size_t i = 0; i < arrivals; i++)
        printf("%llu %llu\n", (unsigned long long)arrival[i][0], (unsigned long long)arrival[i][1]);
    zmq_close(socket);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    void *context = zmq_ctx_new();
    if (strcmp(argv[2], "publish") == 0 && argc == 9) publish(context, argv[4], argv + 5);
    else subscribe(context, argv[4]);
    zmq_ctx_term(context);
    return 0;
}
