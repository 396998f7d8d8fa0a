// The first and only process of the emulated machine: runs /payload with the arguments in /args and the
// environment in /env (each ended by a zero byte), sends what it prints to the serial port, reports how it
// ended, and stops the emulator.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COM1 = 0x3f8 };

static void send(const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        while (!(inb(COM1 + 5) & 0x20)) {}
        outb(bytes[i], COM1);
    }
}

// The zero-terminated strings of a file, after those that are there already.
static void strings(const char *path, char *buffer, size_t size, char **list, int most) {
    int file = open(path, O_RDONLY);
    ssize_t length = file >= 0 ? read(file, buffer, size - 1) : 0;
    int count = 0;
    while (list[count]) count++;
    for (ssize_t i = 0; i < length && count < most; i += strlen(buffer + i) + 1) list[count++] = buffer + i;
    list[count] = 0;
}

int main(void) {
    iopl(3);
    // 115200 baud, 8 bits, no parity, one stop bit, queues on.
    static const unsigned char setup[][2] = {{1, 0}, {3, 0x80}, {0, 1}, {1, 0}, {3, 3}, {2, 7}};
    for (size_t i = 0; i < sizeof setup / 2; i++) outb(setup[i][1], COM1 + setup[i][0]);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/tmp", 01777);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("tmpfs", "/tmp", "tmpfs", 0, 0);
    static char args[65536], env[65536];
    static char *argv[256] = {"/payload"};
    static char *envp[256] = {"HOME=/tmp", "PATH=/bin", "RUST_BACKTRACE=1"};
    strings("/args", args, sizeof args, argv, 255);
    strings("/env", env, sizeof env, envp, 255);
    int out[2];
    if (pipe(out)) return 1;
    send("\n@@BEGIN@@\n", 11);
    pid_t child = fork();
    if (!child) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        close(out[1]);
        if (chdir("/")) _exit(126);
        execve("/payload", argv, envp);
        perror("/payload");
        _exit(127);
    }
    close(out[1]);
    char text[4096];
    ssize_t count;
    while ((count = read(out[0], text, sizeof text)) > 0) send(text, count);
    int status = 0;
    waitpid(child, &status, 0);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    send(text, snprintf(text, sizeof text, "\n@@EXIT %d@@\n", code));
    while (!(inb(COM1 + 5) & 0x40)) {}
    // The emulator's own port.
    for (const char *word = "Shutdown"; *word; word++) outb(*word, 0x8900);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
