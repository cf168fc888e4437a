"""A function in a process of its own that has this one's imports: starting Python and torch takes seconds."""
import ctypes, faulthandler, os, signal, sys, threading, traceback


def fork(function, cwd, env, out, err): # process id; `out` and `err` are file descriptors
    "Call `function()`, which returns an exit status, in a fork."
    for stream in (sys.stdout, sys.stderr): stream.flush()
    if pid := os.fork(): return pid
    status = 70
    try:
        if sys.platform.startswith("linux"): ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        sys.settrace(None) # of coverage
        faulthandler.disable() # of pytest
        signal.signal(signal.SIGINT, signal.default_int_handler) # a shell's background jobs ignore it
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, err)): os.dup2(target, number)
        sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", closefd=False), open(2, "w", closefd=False)
        if cv2 := sys.modules.get("cv2"): cv2.setNumThreads = lambda n: None # it waits for threads that a fork does not have
        status = function()
        threading._shutdown() # as an interpreter does at its end
    except SystemExit as stop:
        status = stop.code
        if isinstance(status, str): status = print(status, file=sys.stderr) or 1
    except BaseException: traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        os._exit(status or 0)
