# What Python has no call for: the process and the clock of Linux. Included by core.pyx.

cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/prctl.h>
    #include <sys/timex.h>
    static void hide(void) { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }
    static int clock_state_of(void) {
        struct timex reads = {0};  /* no mode: nothing is changed */
        return adjtimex(&reads);
    }
    #else
    static void hide(void) {}
    static int clock_state_of(void) { return -1; }
    #endif
    """
    void hide()
    int clock_state_of()


def hide_memory() -> None:
    """No other process of this user reads this one's memory, by ptrace or /proc/PID/mem (prctl(2), PR_SET_DUMPABLE).

    Elsewhere than on Linux nothing happens.
    """
    hide()


def clock_state() -> int:
    """What adjtimex(2) says of the clock: 0 to 4 it is synchronised, 5 it is not, -1 the kernel does not tell."""
    return clock_state_of()
