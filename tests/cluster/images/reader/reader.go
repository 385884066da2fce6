// The reader of reader.py in Go: the runtime's poller and its threads are between program and kernel.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	window        = 100
	pause         = time.Millisecond
	clockBootTime = 7
)

func nowMs() int64 {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(
		syscall.SYS_CLOCK_GETTIME, clockBootTime, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic(errno)
	}
	return ts.Nano() / int64(time.Millisecond)
}

func main() {
	paths := os.Args[1:]
	lastGood := nowMs()
	began, longest, attempts, errors, message := lastGood, int64(0), 0, 0, "-"
	for i := 0; ; i++ {
		content, err := os.ReadFile(paths[i%len(paths)])
		if err == nil && len(content) == 0 {
			err = fmt.Errorf("%s: empty", paths[i%len(paths)])
		}
		now := nowMs()
		attempts++
		if err != nil {
			errors++
			message = err.Error()
		} else {
			longest = max(longest, now-lastGood)
			lastGood = now
		}
		if now-began >= window {
			fmt.Println(now, attempts, errors, longest, message)
			began, longest, attempts, errors, message = now, 0, 0, 0, "-"
		}
		time.Sleep(pause)
	}
}
