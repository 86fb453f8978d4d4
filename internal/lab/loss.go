package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A Loss says how many of a hundred frames the switch loses at a port.
type Loss struct {
	From int // the host
	To   int // the host
}

// lossTable is where the switch keeps what it shall lose, in its namespace.
const lossTable = "loss"

// lose makes the switch lose frames at a port; the zero Loss ends it. Frames that the switch
// itself sends or gets are none of it: it has no address.
func (l *lan) lose(port string, loss Loss) error {
	err := l.space.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: lossTable, Family: nftables.TableFamilyBridge})
		accept := nftables.ChainPolicyAccept
		chain := c.AddChain(&nftables.Chain{
			Name: port, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept,
		})
		c.FlushChain(chain)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropShare(expr.MetaKeyIIFNAME, port, loss.From)})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropShare(expr.MetaKeyOIFNAME, port, loss.To)})
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("lose frames at port %s of the switch: %w", port, err)
	}
	return nil
}

// dropShare drops percent of the frames that pass an interface.
func dropShare(key expr.MetaKey, name string, percent int) []expr.Any {
	ifname := make([]byte, unix.IFNAMSIZ)
	copy(ifname, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname},
		&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
		// Numbers of the host's order compare as bytes only in the network's.
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(percent))},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// Lose makes the switch lose frames from and to the host; the zero Loss ends it.
func (h *Host) Lose(loss Loss) error { return h.lan.lose(h.port(), loss) }

// Deafen keeps all frames from reaching the host; its own go out.
func (h *Host) Deafen() error { return h.Lose(Loss{To: 100}) }

// Mute keeps all frames of the host from reaching anybody; it hears the others.
func (h *Host) Mute() error { return h.Lose(Loss{From: 100}) }
