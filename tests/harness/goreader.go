// The reader of reader.py in Go, whose runtime interrupts system calls by signals all the time.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

const (
	record = 14 // b"user-00000001;"
	stopAt = 8
)

type report struct {
	Begun     []float64      `json:"begun"`
	Ended     []float64      `json:"ended"`
	Errors    map[string]int `json:"errors"`
	Torn      int            `json:"torn"`
	Stale     int            `json:"stale"`
	SizeWrong int            `json:"size_wrong"`
	Examples  []string       `json:"examples"`
}

// now returns the monotonic clock of the system; that of package time begins with the program.
func now() float64 {
	const clockMonotonic = 1
	var found syscall.Timespec
	_, _, failed := syscall.RawSyscall(
		syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&found)), 0)
	if failed != 0 {
		panic(failed)
	}
	return float64(found.Sec) + float64(found.Nsec)/1e9
}

// judge returns the generation when all records agree and their number is right, -1 otherwise.
func judge(data []byte) int64 {
	if len(data) < record {
		return -1
	}
	generation, err := strconv.ParseInt(string(data[5:13]), 10, 64)
	if err != nil || !bytes.Equal(data, bytes.Repeat(data[:record], int(1+generation*7919%900))) {
		return -1
	}
	return generation
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	return data, errors.Join(err, file.Close())
}

func main() {
	path, sharedPath, reportPath := os.Args[1], os.Args[2], os.Args[3]
	file, err := os.Open(sharedPath)
	must(err)
	shared, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	must(err)
	found := report{Errors: map[string]int{}, Examples: []string{}}
	for shared[stopAt] == 0 {
		atLeast := int64(binary.NativeEndian.Uint64(shared))
		found.Begun = append(found.Begun, now())
		data, err := read(path)
		found.Ended = append(found.Ended, now())
		if err != nil {
			found.Errors[err.Error()]++
			continue
		}
		switch generation := judge(data); {
		case generation < 0:
			found.Torn++
			found.Examples = append(found.Examples, fmt.Sprintf("torn: %d bytes", len(data)))
		case generation < atLeast:
			found.Stale++
			found.Examples = append(found.Examples, fmt.Sprintf("stale: %d after %d", generation, atLeast))
		}
	}
	text, err := json.Marshal(found)
	must(err)
	must(os.WriteFile(reportPath, text, 0o600))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
