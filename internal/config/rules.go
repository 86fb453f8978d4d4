package config

// check keeps the rules that join several keys.
func (d *decoder) check(c *Config) {
}
