/* registers.h - the STM32F405's registers that this port touches (reference manual RM0090). */
#ifndef STM32F4_REGISTERS_H
#define STM32F4_REGISTERS_H

#include "cortexm.h"

#define RCC_CR      REG(0x40023800u)
#define RCC_PLLCFGR REG(0x40023804u)
#define RCC_CFGR    REG(0x40023808u)
#define RCC_AHB1ENR REG(0x40023830u)
#define RCC_APB1ENR REG(0x40023840u)
#define RCC_APB2ENR REG(0x40023844u)
#define RCC_HSIRDY  (1u << 1)
#define RCC_HSEON   (1u << 16)
#define RCC_HSERDY  (1u << 17)
#define RCC_PLLON   (1u << 24)
#define RCC_PLLRDY  (1u << 25)
#define RCC_PLLHSE  (1u << 22)

#define RCC_CSR      REG(0x40023874u)
#define RCC_IWDGRSTF (1u << 29)
#define RCC_RMVF     (1u << 24)

#define IWDG_KR  REG(0x40003000u)
#define IWDG_PR  REG(0x40003004u)
#define IWDG_RLR REG(0x40003008u)

#define FLASH_ACR  REG(0x40023C00u)
#define FLASH_KEYR REG(0x40023C04u)
#define FLASH_SR   REG(0x40023C0Cu)
#define FLASH_CR   REG(0x40023C10u)

#define GPIO(port, offset) REG(0x40020000u + 0x400u * (port) + (offset))
#define GPIO_MODER         0x00u
#define GPIO_OSPEEDR       0x08u
#define GPIO_PUPDR         0x0Cu
#define GPIO_AFR           0x20u

#define USART_SR   0x00u
#define USART_DR   0x04u
#define USART_BRR  0x08u
#define USART_CR1  0x0Cu
#define USART_ORE  (1u << 3)
#define USART_RXNE (1u << 5)
#define USART_TC   (1u << 6)
#define USART_TXE  (1u << 7)

#endif
