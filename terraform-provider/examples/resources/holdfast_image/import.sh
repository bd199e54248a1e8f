terraform import holdfast_image.debian default/debian-13
