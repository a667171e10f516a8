"""What every step needs: errors, atomic files, progress, devices and precision, provenance."""
