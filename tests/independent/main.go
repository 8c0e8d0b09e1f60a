// Checks copies of the audit log, and proofs of records, with the Go project's
// own packages of these formats (golang.org/x/mod/sumdb/note and tlog) and none
// of hsmint's code:
//
//	independent tiles DIR VKEY...     prints "ORIGIN SIZE"
//	independent proof FILE VKEY...    prints the record
//	independent note FILE VKEY...     prints the text (of a ceremony's transcript)
//
// Every key has to have signed. Exit status 1 where something does not hold.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The note package knows Ed25519 alone; ECDSA is type 2 of c2sp.org/signed-note.
type ecdsaVerifier struct {
	name string
	id   uint32
	key  *ecdsa.PublicKey
}

func (v *ecdsaVerifier) Name() string    { return v.name }
func (v *ecdsaVerifier) KeyHash() uint32 { return v.id }
func (v *ecdsaVerifier) Verify(text, signature []byte) bool {
	digest := sha256.Sum256(text)
	return ecdsa.VerifyASN1(v.key, digest[:], signature)
}

func verifier(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not a key: " + vkey)
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) == 0 || data[0] != 2 {
		return note.NewVerifier(vkey)
	}
	key, err := x509.ParsePKIXPublicKey(data[1:])
	if err != nil {
		return nil, err
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("not an ECDSA key: " + vkey)
	}
	digest := sha256.Sum256(data[1:])
	return &ecdsaVerifier{parts[0], binary.BigEndian.Uint32(digest[:4]), public}, nil
}

func openNote(data []byte, vkeys []string) (*note.Note, error) {
	var list []note.Verifier
	for _, vkey := range vkeys {
		v, err := verifier(vkey)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	n, err := note.Open(data, note.VerifierList(list...))
	if err == nil && len(n.Sigs) != len(list) {
		err = fmt.Errorf("%d of %d keys have signed", len(n.Sigs), len(list))
	}
	return n, err
}

func openCheckpoint(data []byte, vkeys []string) (string, tlog.Tree, error) {
	var tree tlog.Tree
	n, err := openNote(data, vkeys)
	if err != nil {
		return "", tree, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 {
		return "", tree, errors.New("a checkpoint has three lines")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return "", tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return lines[0], tree, err
}

// The directory, as sumdb's reader of tiles sees it: its names have the height
// of tiles before the level, those of c2sp.org/tlog-tiles have not.
type directory string

func (directory) Height() int                     { return 8 }
func (directory) SaveTiles([]tlog.Tile, [][]byte) {}
func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(string(d), strings.Replace(t.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (d directory) entries(index, size int64) ([][]byte, error) {
	width := size - index*256
	if width > 256 {
		width = 256
	}
	t := tlog.Tile{H: 8, L: 0, N: index, W: int(width)}
	name := strings.Replace(t.Path(), "tile/8/0/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New(name + " is cut")
		}
		n := int(binary.BigEndian.Uint16(data))
		all = append(all, data[2:2+n])
		data = data[2+n:]
	}
	if int64(len(all)) != width {
		return nil, errors.New(name + " has another number of records")
	}
	return all, nil
}

func checkTiles(dir string, vkeys []string) error {
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	origin, tree, err := openCheckpoint(data, vkeys)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, directory(dir))
	for i := int64(0); i*256 < tree.N; i++ {
		records, err := directory(dir).entries(i, tree.N)
		if err != nil {
			return err
		}
		var at []int64
		for j := range records {
			at = append(at, tlog.StoredHashIndex(0, i*256+int64(j)))
		}
		known, err := hashes.ReadHashes(at)
		if err != nil {
			return err
		}
		for j, record := range records {
			if tlog.RecordHash(record) != known[j] {
				return fmt.Errorf("record %d is not the tile's", i*256+int64(j)+1)
			}
		}
	}
	fmt.Println(origin, tree.N)
	return nil
}

func checkProof(file string, vkeys []string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, _ := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" ||
		!strings.HasPrefix(lines[1], "extra ") || !strings.HasPrefix(lines[2], "index ") {
		return errors.New("not a proof with its record")
	}
	record, err := base64.StdEncoding.DecodeString(lines[1][6:])
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(lines[2][6:], 10, 64)
	if err != nil {
		return err
	}
	_, tree, err := openCheckpoint(checkpoint, vkeys)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, h)
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(record)); err != nil {
		return err
	}
	fmt.Println(string(record))
	return nil
}

func checkNote(path string, vkeys []string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n, err := openNote(data, vkeys)
	if err == nil {
		fmt.Print(n.Text)
	}
	return err
}

func main() {
	check := map[string]func(string, []string) error{"tiles": checkTiles, "proof": checkProof, "note": checkNote}
	if len(os.Args) < 4 || check[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: independent tiles|proof|note PATH VKEY...")
		os.Exit(2)
	}
	if err := check[os.Args[1]](os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
