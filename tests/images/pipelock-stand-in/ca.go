package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// Authority mints a certificate for each name that a client asks for, and remembers them.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ttl  time.Duration
	max  int

	mu    sync.Mutex
	leafs map[string]*tls.Certificate
}

// LoadAuthority reads a certificate and its key, and refuses what the real program refuses.
func LoadAuthority(certFile, keyFile string, ttl time.Duration, cacheSize int) (*Authority, error) {
	cert, err := loadCert(certFile)
	if err != nil {
		return nil, fmt.Errorf("CA certificate %s: %w", certFile, err)
	}
	key, err := loadKey(keyFile)
	if err != nil {
		return nil, fmt.Errorf("CA key %s: %w", keyFile, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the CA certificate and the CA key do not belong together")
	}
	return &Authority{cert: cert, key: key, ttl: ttl, max: cacheSize, leafs: map[string]*tls.Certificate{}}, nil
}

// Leaf is a certificate for one name or address. The chain holds the leaf alone: a client must know the authority.
func (a *Authority) Leaf(name string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if leaf, ok := a.leafs[name]; ok && now.Before(leaf.Leaf.NotAfter.Add(-a.ttl/10)) {
		return leaf, nil
	}
	leaf, err := a.mint(name, now)
	if err != nil {
		return nil, err
	}
	if len(a.leafs) >= a.max {
		for oldest := range a.leafs { // any one will do for a test double
			delete(a.leafs, oldest)
			break
		}
	}
	a.leafs[name] = leaf
	return leaf, nil
}

func (a *Authority) mint(name string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(a.ttl),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, nil
}

func loadCert(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return nil, err
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return nil, errors.New("not a certificate authority")
	case cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, errors.New("its key usage lacks certificate signing")
	}
	return cert, nil
}

// loadKey takes a SEC1 key, as the very first PEM block, from a file that only its owner may change and no one else may
// read (the owner's group may).
func loadKey(file string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o137 != 0 {
		return nil, fmt.Errorf("mode %04o is too open, at most 0640", mode)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	if block.Type != "EC PRIVATE KEY" {
		return nil, fmt.Errorf("the first PEM block is %q, not \"EC PRIVATE KEY\"", block.Type)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}
