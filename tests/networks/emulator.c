/* Bad links between network namespaces. Every IP packet between the server and a client passes through this program.
 *
 *     emulator CLIENTS LOG
 *
 * makes the TUN device s0 for the server and cKa and cKb for each client K, prints "ready", and waits for commands. The
 * caller moves the devices into namespaces and gives them addresses: 10.77.0.1 is the server, 10.77.K.2 the client K
 * on its link a, and 10.78.K.2 on its link b.
 *
 * A link has two directions, up and down, which share nothing. Each has, in this order: an outage, loss (random or in
 * bursts), a token bucket of one packet with a drop-tail queue that is as long as it takes to send, a delay, and jitter
 * that does not reorder. The random numbers are seeded: equal runs lose equal packets.
 *
 * Commands on stdin, one a line; the program ends with its stdin:
 *
 *     set CLIENT|* a|b|* up|down|both [rate=BITS_PER_S] [queue=MS] [loss=SHARE] [burst=ENTER,LEAVE,SHARE] [delay=MS]
 *         [jitter=MS] [block=0|1]
 *
 * rate=0 is a link without limit. `burst` is the Gilbert-Elliott model: the chances, at each packet, to enter and to
 * leave the bad state, and the share that is lost there; burst=0,0,0 turns it off.
 *
 * The log has one line a fifth of a second and direction that had packets, with these fields: seconds since 1970, client,
 * link, direction, bytes and packets offered, bytes and packets delivered, packets that the full queue dropped, packets
 * lost, and the mean and the longest wait in the queue in ms, as packets met it that it took. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 40, LINKS = 2, WAITING = 16384, BATCH = 64, UP = 0, DOWN = 1 };
#define LOG_S 0.2
#define DEFAULT_QUEUE_MS 300.0

typedef struct {
  double due_s;
  int length;
  unsigned char *data;
} packet;

typedef struct {
  long offered_bytes, offered, delivered_bytes, delivered, overflowed, lost, queued;
  double wait_ms_sum, wait_ms_max;
} counts;

typedef struct {
  double rate_bps, queue_ms, loss, enter, leave, loss_in_burst, delay_ms, jitter_ms;
  bool blocked, in_burst;
  double free_s; /* when the last packet that waits for its turn has been sent */
  double last_s; /* when the last packet is due at the other end */
  uint64_t random;
  packet *waiting; /* a ring */
  unsigned head, tail;
  counts since; /* the last line of the log */
} direction;

typedef struct {
  int device;
  direction way[2];
} connection;

static connection links[MAX_CLIENTS + 1][LINKS];
static int clients, server_device;
static FILE *traffic;

static double clock_s(clockid_t which) {
  struct timespec now;
  clock_gettime(which, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* xorshift64*, in [0, 1) */
static double chance(direction *way) {
  way->random ^= way->random >> 12;
  way->random ^= way->random << 25;
  way->random ^= way->random >> 27;
  return (double)((way->random * 0x2545F4914F6CDD1DULL) >> 11) / 9007199254740992.0;
}

static bool is_lost(direction *way) {
  double state = chance(way), fate = chance(way);
  if (way->enter <= 0) return fate < way->loss;
  if (state < (way->in_burst ? way->leave : way->enter)) way->in_burst = !way->in_burst;
  return way->in_burst && fate < way->loss_in_burst;
}

static void offer(direction *way, const unsigned char *data, int length) {
  double now_s = clock_s(CLOCK_MONOTONIC), wait_s = 0, sent_s = now_s;
  way->since.offered_bytes += length;
  way->since.offered++;
  if (way->blocked || is_lost(way)) {
    way->since.lost++;
    return;
  }
  if (way->rate_bps > 0) {
    wait_s = way->free_s > now_s ? way->free_s - now_s : 0;
    if (wait_s * 1e3 > way->queue_ms) {
      way->since.overflowed++;
      return;
    }
    sent_s = way->free_s = now_s + wait_s + length * 8.0 / way->rate_bps;
  }
  if (way->tail - way->head == WAITING) {
    way->since.overflowed++;
    return;
  }
  way->since.queued++;
  way->since.wait_ms_sum += wait_s * 1e3;
  if (wait_s * 1e3 > way->since.wait_ms_max) way->since.wait_ms_max = wait_s * 1e3;
  double due_s = sent_s + way->delay_ms * 1e-3 + chance(way) * way->jitter_ms * 1e-3;
  if (due_s < way->last_s) due_s = way->last_s;
  way->last_s = due_s;
  packet *one = &way->waiting[way->tail++ % WAITING];
  one->due_s = due_s;
  one->length = length;
  one->data = malloc((size_t)length);
  memcpy(one->data, data, (size_t)length);
}

/* Delivers what is due; returns when the next one is, or `until_s`. */
static double deliver(direction *way, int device, double now_s, double until_s) {
  while (way->head != way->tail) {
    packet *one = &way->waiting[way->head % WAITING];
    if (one->due_s > now_s) return one->due_s < until_s ? one->due_s : until_s;
    if (write(device, one->data, (size_t)one->length) == one->length) {
      way->since.delivered_bytes += one->length;
      way->since.delivered++;
    }
    free(one->data);
    way->head++;
  }
  return until_s;
}

static void change(direction *way, const char *setting) {
  const char *equals = strchr(setting, '=');
  if (!equals) return;
  size_t length = (size_t)(equals - setting);
  const char *text = equals + 1;
  double number = atof(text);
#define IS(name) (length == strlen(name) && !strncmp(setting, name, length))
  if (IS("rate")) way->rate_bps = number;
  else if (IS("queue")) way->queue_ms = number;
  else if (IS("loss")) way->loss = number;
  else if (IS("delay")) way->delay_ms = number;
  else if (IS("jitter")) way->jitter_ms = number;
  else if (IS("block")) way->blocked = number != 0;
  else if (IS("burst")) {
    way->in_burst = false;
    if (sscanf(text, "%lf,%lf,%lf", &way->enter, &way->leave, &way->loss_in_burst) != 3) way->enter = 0;
  } else fprintf(stderr, "emulator: there is no setting %s\n", setting);
#undef IS
}

static void obey(char *line) {
  char *words[16], *rest = line, *word;
  int count = 0;
  while (count < 16 && (word = strsep(&rest, " \n")))
    if (*word) words[count++] = word;
  if (count < 5 || strcmp(words[0], "set")) return;
  for (int client = 1; client <= clients; client++) {
    if (*words[1] != '*' && atoi(words[1]) != client) continue;
    for (int link = 0; link < LINKS; link++) {
      if (*words[2] != '*' && *words[2] - 'a' != link) continue;
      for (int way = UP; way <= DOWN; way++) {
        if (strcmp(words[3], "both") && strcmp(words[3], way == DOWN ? "down" : "up")) continue;
        for (int i = 4; i < count; i++) change(&links[client][link].way[way], words[i]);
      }
    }
  }
}

static void read_commands(void) {
  static char text[8192];
  static size_t have;
  ssize_t got = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
  if (got == 0) exit(0);
  if (got < 0) return;
  have += (size_t)got;
  text[have] = 0;
  for (char *end; (end = strchr(text, '\n'));) {
    *end = 0;
    obey(text);
    have -= (size_t)(end + 1 - text);
    memmove(text, end + 1, have + 1);
  }
}

static void write_log(void) {
  double now_s = clock_s(CLOCK_REALTIME);
  for (int client = 1; client <= clients; client++)
    for (int link = 0; link < LINKS; link++)
      for (int way = UP; way <= DOWN; way++) {
        counts *since = &links[client][link].way[way].since;
        if (since->offered || since->delivered)
          fprintf(traffic, "%.3f %d %c %s %ld %ld %ld %ld %ld %ld %.1f %.1f\n", now_s, client, 'a' + link,
                  way == DOWN ? "down" : "up", since->offered_bytes, since->offered, since->delivered_bytes,
                  since->delivered, since->overflowed, since->lost,
                  since->queued ? since->wait_ms_sum / (double)since->queued : 0, since->wait_ms_max);
        memset(since, 0, sizeof *since);
      }
  fflush(traffic);
}

static int make_device(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (device < 0 || ioctl(device, TUNSETIFF, &request) < 0) {
    perror(name);
    exit(1);
  }
  return device;
}

static void make_links(void) {
  server_device = make_device("s0");
  for (int client = 1; client <= clients; client++)
    for (int link = 0; link < LINKS; link++) {
      char name[IFNAMSIZ];
      snprintf(name, sizeof name, "c%d%c", client, 'a' + link);
      links[client][link].device = make_device(name);
      for (int way = UP; way <= DOWN; way++) {
        direction *one = &links[client][link].way[way];
        one->queue_ms = DEFAULT_QUEUE_MS;
        one->waiting = calloc(WAITING, sizeof(packet));
        one->random = (uint64_t)(client * 4 + link * 2 + way + 1) * 0x9E3779B97F4A7C15ULL | 1;
      }
    }
}

/* Packets of the server go to the client and link that their destination names (bytes 16 to 19 of an IPv4 header). */
static void from_server(void) {
  unsigned char data[65536];
  for (int i = 0; i < BATCH; i++) {
    int length = (int)read(server_device, data, sizeof data);
    if (length <= 0) return;
    if (length < 20 || data[0] >> 4 != 4 || data[16] != 10) continue;
    int link = data[17] - 77, client = data[18];
    if (link >= 0 && link < LINKS && client >= 1 && client <= clients) offer(&links[client][link].way[DOWN], data, length);
  }
}

static void from_client(connection *one) {
  unsigned char data[65536];
  for (int i = 0; i < BATCH; i++) {
    int length = (int)read(one->device, data, sizeof data);
    if (length <= 0) return;
    if (length >= 20 && data[0] >> 4 == 4) offer(&one->way[UP], data, length);
  }
}

static double deliver_all(double now_s) {
  double next_s = now_s + LOG_S / 2;
  for (int client = 1; client <= clients; client++)
    for (int link = 0; link < LINKS; link++) {
      connection *one = &links[client][link];
      next_s = deliver(&one->way[UP], server_device, now_s, next_s);
      next_s = deliver(&one->way[DOWN], one->device, now_s, next_s);
    }
  return next_s;
}

static void run(void) {
  struct pollfd polled[2 + MAX_CLIENTS * LINKS];
  nfds_t count = 0;
  polled[count++] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
  polled[count++] = (struct pollfd){server_device, POLLIN, 0};
  for (int client = 1; client <= clients; client++)
    for (int link = 0; link < LINKS; link++) polled[count++] = (struct pollfd){links[client][link].device, POLLIN, 0};
  for (double logged_s = clock_s(CLOCK_MONOTONIC);;) {
    double now_s = clock_s(CLOCK_MONOTONIC), next_s = deliver_all(now_s);
    if (now_s - logged_s >= LOG_S) {
      logged_s = now_s;
      write_log();
    }
    double wait_s = next_s - clock_s(CLOCK_MONOTONIC);
    if (wait_s < 0) wait_s = 0;
    struct timespec wait = {0, (long)(wait_s * 1e9)};
    if (ppoll(polled, count, &wait, NULL) <= 0) continue;
    if (polled[0].revents) read_commands();
    if (polled[1].revents & POLLIN) from_server();
    for (nfds_t i = 2; i < count; i++)
      if (polled[i].revents & POLLIN) from_client(&links[1 + (i - 2) / LINKS][(i - 2) % LINKS]);
  }
}

int main(int argc, char **argv) {
  clients = argc == 3 ? atoi(argv[1]) : 0;
  if (clients < 1 || clients > MAX_CLIENTS) {
    fprintf(stderr, "usage: emulator CLIENTS LOG, with 1 to %d clients\n", MAX_CLIENTS);
    return 2;
  }
  if (!(traffic = fopen(argv[2], "w"))) {
    perror(argv[2]);
    return 1;
  }
  prctl(PR_SET_PDEATHSIG, 9);       /* never without the test */
  prctl(PR_SET_TIMERSLACK, 10000);  /* ns */
  setpriority(PRIO_PROCESS, 0, -15); /* a busy machine is no jitter of the link */
  make_links();
  fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
  puts("ready");
  fflush(stdout);
  run();
}
